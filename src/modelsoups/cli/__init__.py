"""The command line: the table of commands, and the commands that are not stages of the pipeline."""

from modelsoups.cli.commands import main

__all__ = ["main"]
