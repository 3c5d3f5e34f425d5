"""The `leyden` command."""

import logging
import sys

OF_AGENTS = ("run", "runner")
"""Commands that need only the client library; they load nothing else."""


def main() -> None:
    """Entry point of the console script. Without the extras it says what to install."""
    if sys.argv[1:2] and sys.argv[1] in OF_AGENTS:
        from leyden.cli.agents import main as run_agents

        sys.exit(run_agents(sys.argv[1:]))
    try:
        from leyden.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(
            f"leyden: {error.name} is not installed. This command needs `pip install 'leyden[services,local]'`; "
            "`leyden run` and `leyden runner` work without it."
        )
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # it retries by itself and logs every try
    app()
