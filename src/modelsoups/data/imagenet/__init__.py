"""Preparation of ImageNet, its hold-out and its test sets from any of their usual file formats."""
