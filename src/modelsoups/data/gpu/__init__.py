"""Augments whole batches of training images on the GPU."""
