"""Runs the command line for `python -m modelsoups`, but not if a worker process imports this file."""

from modelsoups.cli.commands import main

if __name__ == "__main__":
    main()
