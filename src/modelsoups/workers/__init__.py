"""Runs tasks in parallel worker processes, with one line of progress."""
