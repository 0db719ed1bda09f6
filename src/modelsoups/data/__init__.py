"""Prepared sets: shards, decoding, training batches, crops for evaluation, libraries that make sets."""
