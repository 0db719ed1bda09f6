"""Converts ImageNet and its test sets from any of their usual file formats to tar shards."""
