"""Run the command line with ``python -m latentart``."""

from latentart.cli import main

if __name__ == "__main__":
    main()
