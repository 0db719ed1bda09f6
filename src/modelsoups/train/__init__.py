"""Training of one ingredient: loop, optimizers, weight averages, resuming, several processes."""
