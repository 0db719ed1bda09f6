"""Data sets: shards, transforms, and the miniature."""
