"""Augmentation of whole batches on the GPU."""
