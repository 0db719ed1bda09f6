"""Training one ingredient: loop, step, optimizers, averages, resuming, several processes."""
