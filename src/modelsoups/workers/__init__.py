"""Runs tasks in parallel worker processes, and shows their progress."""
