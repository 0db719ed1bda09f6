"""Fine-tune one model: training loop, optimizers, EMA and SWA, checkpoints, several processes."""
