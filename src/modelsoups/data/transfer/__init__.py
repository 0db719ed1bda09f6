"""The data sets of soups across data sets (appendix E): DTD, Food-101, SUN397, Stanford Cars and CIFAR-100."""
