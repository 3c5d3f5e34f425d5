"""`python -m leyden.cli` is the `leyden` command."""

from leyden.cli import main

if __name__ == "__main__":
    main()
