"""Prepared data sets: shards, transforms, decoding, loaders; ImageNet's files and class folders."""
