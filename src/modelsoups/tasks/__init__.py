"""Learning tasks, such as image classification: their batches, model, loss and score."""

UNITS = {"images": "images", "text": "examples"}  # by task; known without PyTorch
