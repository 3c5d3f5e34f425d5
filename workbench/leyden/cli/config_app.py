"""`leyden config check`: options only."""

from pathlib import Path
from typing import Annotated

import typer

from leyden.cli.shell import clear_errors, examples, progress, say

config_app = typer.Typer(no_args_is_help=True, help="Check run files.")


@config_app.command()
@examples("leyden config check run.yaml")
def check(
    run_file: Annotated[Path, typer.Argument(metavar="RUN_FILE", exists=True, dir_okay=False, help="A run file.")],
) -> None:
    """Check a run file: every wrong field at once, with line, value and the nearest right name.

    Each service checks its section, as at its start, and reward functions are imported. `leyden up` does the
    same before it starts anything.
    """
    from leyden.stack.config import StackConfig
    from leyden.stack.plan import python_env
    from leyden.stack.run_file import run_file_problems

    with clear_errors():
        with progress() as tell:
            tell("checking")
            problems = run_file_problems(run_file, python_env(StackConfig(run_file=run_file.resolve())))
        for problem in problems:
            say(problem)
        if problems:
            raise typer.Exit(1)
        say(f"{run_file} is valid")
