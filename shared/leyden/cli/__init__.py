"""The `leyden` command. It composes; what it does is elsewhere."""

import logging
import sys


def main() -> None:
    """Entry point of the console script; says in one sentence what is missing when the extras are not installed."""
    try:
        from leyden.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(f"leyden: {error.name} is not installed. The command needs: pip install 'leyden[services,local]'")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # it retries by itself, and says so at length
    app()
