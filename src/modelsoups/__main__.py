"""Runs the command line for `python -m modelsoups`, but not when a worker imports this file."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():
        del sys.path[0]  # Python put the working folder there, whose secrets.py is no library

    from modelsoups.cli.commands import main

    main()
