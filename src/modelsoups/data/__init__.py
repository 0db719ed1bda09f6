"""Converts ImageNet or class folders to tar shards; decodes, augments and batches their images."""
