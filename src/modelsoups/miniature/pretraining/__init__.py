"""Pre-training of the miniature's models, which ship with the package."""
