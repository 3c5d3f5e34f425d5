"""What all commands share: the console, one-line errors, progress, common options, examples in `--help`."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from leyden.client.local_stack import FOLDERS, data_folder
from leyden.stack.errors import StackError
from leyden.stack.progress import Progress

console = Console()
STACK_DIR, DEMO_DIR = FOLDERS

DataDir = Annotated[Path, typer.Option(help="Folder of the local stack: logs, Kafka and Redis data, checkpoints.")]


def _used_folder(context: typer.Context, parameter: typer.CallbackParam, given: Path) -> Path:
    """The folder that is given, else that of the stack that runs in `.leyden`, else of the one used last."""
    source = context.get_parameter_source(parameter.name or "")
    return given if source is not None and source.name != "DEFAULT" else data_folder((STACK_DIR, DEMO_DIR))


_OF_A_STACK = "Default: of .leyden/stack and .leyden/demo the one that runs, or was used last."
StackDir = Annotated[
    Path, typer.Option(callback=_used_folder, show_default=False, help=f"Folder of the local stack. {_OF_A_STACK}")
]
RunFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Run file (YAML): sections reward, credit, trainer, policy."),
]
LogDir = Annotated[
    Path,
    typer.Option(
        callback=_used_folder,
        show_default=False,
        help=f"Folder of the stack to read, running or stopped. KAFKA_BOOTSTRAP_SERVERS overrides it. {_OF_A_STACK}",
    ),
]
TopicPrefix = Annotated[
    str | None, typer.Option(help="Prefix of the topics to read; a replay's is `NAME.`. Default: the stack's.")
]
GatewayUrl = Annotated[
    str | None, typer.Option("--gateway", help="URL of the gateway. Default: LEYDEN_GATEWAY_URL, else the local stack.")
]
ApiKey = Annotated[str | None, typer.Option(help="API key. Default: LEYDEN_API_KEY, else the local stack's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the full report as JSON.")]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[_Command], _Command]:
    """Add example command lines to the help text of a command."""

    def add(command: _Command) -> _Command:
        paragraphs = [" ".join(part.split()) for part in cleandoc(command.__doc__ or "").split("\n\n")]
        block = "\b\nExamples:" + "".join(f"\n  {line}" for line in lines)  # \b keeps the line breaks
        command.__doc__ = "\n\n".join([*paragraphs, block])
        return command

    return add


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print a `StackError` and exit with status 1; exit with 130 on Ctrl-C, SIGTERM and SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except StackError as error:
        console.print(f"[bold red]leyden:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("\nstopped")
        raise typer.Exit(130) from None


@contextmanager
def progress() -> Iterator[Progress]:
    """Print progress lines; end the last one."""
    lines = Progress(console)
    try:
        yield lines
    finally:
        lines.close()


def say(line: str) -> None:
    """Print one line of the result without wrapping it, so that it can be copied."""
    console.print(line, soft_wrap=True, highlight=False)
