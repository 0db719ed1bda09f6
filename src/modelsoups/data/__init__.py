"""Data sets: preparation from ImageNet or class folders, shards, decoders, transforms, loaders."""
