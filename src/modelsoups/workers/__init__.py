"""Tasks side by side in worker processes, with one line of progress."""
