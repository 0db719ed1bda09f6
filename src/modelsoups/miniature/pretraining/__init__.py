"""Pre-training of the miniature experiment's models, which are part of the package."""
