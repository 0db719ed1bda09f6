"""Augmentation of whole batches on a GPU."""
