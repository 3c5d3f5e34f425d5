"""What all commands share: the console, errors in one sentence, progress, and options that mean the same everywhere."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from leyden.cli.progress import Progress
from leyden.stack.errors import StackError

console = Console()

DataDir = Annotated[Path, typer.Option(help="Folder of the local stack: logs, Kafka's and Redis' data, checkpoints.")]
RunFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="YAML: reward, credit, trainer, policy.")
]
LogDir = Annotated[
    Path,
    typer.Option(
        help="Folder of a local stack, running or stopped. KAFKA_BOOTSTRAP_SERVERS names another broker than its own."
    ),
]
TopicPrefix = Annotated[
    str | None, typer.Option(help="Of the topics to read (`NAME.` for a replay); default: the stack's.")
]
STACK_DIR = Path(".leyden/stack")
DEMO_DIR = Path(".leyden/demo")


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user can mend is one sentence and exit status 1; Ctrl-C and SIGTERM end in order, with 130."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except StackError as error:
        console.print(f"[bold red]leyden:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("\nstopped")
        raise typer.Exit(130) from None


@contextmanager
def progress() -> Iterator[Progress]:
    """Lines of progress, and an end to the last one."""
    lines = Progress(console)
    try:
        yield lines
    finally:
        lines.close()


def say(line: str) -> None:
    """One line of the result, unbroken, so that it can be copied."""
    console.print(line, soft_wrap=True, highlight=False)
