"""What is learned: inputs, model, loss and score of each kind of task."""
