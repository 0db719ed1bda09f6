"""Fine-tuning of one model: training loop, optimizers, EMA and SWA, checkpoints, distribution."""
