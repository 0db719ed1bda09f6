"""The command line: the command table, and the commands that are not stages of the pipeline."""

from modelsoups.cli.commands import main

__all__ = ["main"]
