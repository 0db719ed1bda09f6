"""`python -m modelsoups`. Worker processes import this file too, hence the guard."""

from modelsoups.cli.commands import main

if __name__ == "__main__":
    main()
