"""Learning tasks, such as image classification: their batches, model, loss and score."""
