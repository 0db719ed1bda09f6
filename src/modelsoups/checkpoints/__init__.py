"""Readers of checkpoints in all common formats, and comparisons of their layouts."""
