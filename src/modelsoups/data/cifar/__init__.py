"""CIFAR-10 and CIFAR-10.1 as prepared sets (data.library=cifar, Figure G.2)."""
