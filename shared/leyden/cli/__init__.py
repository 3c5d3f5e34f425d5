"""The `leyden` command. It composes; what it does is elsewhere."""

import sys


def main() -> None:
    """Entry point of the console script; says in one sentence what is missing when the extras are not installed."""
    try:
        from leyden.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(f"leyden: {error.name} is not installed. The command needs: pip install 'leyden[services,local]'")
    app()
