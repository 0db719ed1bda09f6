"""Learning tasks: the inputs, model, loss and score of each kind of task."""
