"""Checkpoints on disk: every form that weights come in, and how they compare."""
