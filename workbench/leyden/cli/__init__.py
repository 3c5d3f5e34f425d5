"""The `leyden` command. It composes; what it does is elsewhere."""

import logging
import sys

OF_AGENTS = ("run", "runner")
"""Commands that need the client library only, and start without loading what the others need."""


def main() -> None:
    """Entry point of the console script; says in one sentence what is missing when the extras are not installed."""
    if sys.argv[1:2] and sys.argv[1] in OF_AGENTS:
        from leyden.cli.agents import main as run_agents

        sys.exit(run_agents(sys.argv[1:]))
    try:
        from leyden.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(
            f"leyden: {error.name} is not installed. `leyden run` and `leyden runner` work as it is; "
            "the other commands need: pip install 'leyden[services,local]'"
        )
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # it retries by itself, and says so at length
    app()
