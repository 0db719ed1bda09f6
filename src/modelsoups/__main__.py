"""Runs the command line for `python -m modelsoups`, but not when a worker imports this file."""

from modelsoups.cli.commands import main

if __name__ == "__main__":
    main()
