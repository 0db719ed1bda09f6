"""The command-line interface: the entry point, and the commands that are not pipeline stages."""

from modelsoups.cli.commands import main

__all__ = ["main"]
