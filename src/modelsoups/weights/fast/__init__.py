"""Compiled, multithreaded sums and inner products over the weights of many checkpoints."""
