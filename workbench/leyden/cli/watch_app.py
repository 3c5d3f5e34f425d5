"""`leyden watch` and `leyden status`: options only."""

import asyncio
from typing import Annotated

import typer

from leyden.cli.shell import STACK_DIR, AsJson, LogDir, StackDir, TopicPrefix, clear_errors, console, examples, progress

watch_app = typer.Typer()


@watch_app.command()
@examples("leyden watch", "leyden watch --once", "leyden watch --json")
def watch(
    once: Annotated[bool, typer.Option("--once", help="Print the state once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the full state once, as JSON, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """Watch training live: the held-out curve, steps, groups, queue, failures, and what to do next.

    Also the live version, staleness, the lag of each stage, and throughput. Without a terminal it prints a line for
    each thing that is new. Ctrl-C ends the command; training goes on.
    """
    from leyden.cli.watch_view import print_json, print_screen, watching

    with clear_errors(), progress() as tell:
        if as_json:
            asyncio.run(print_json(data_dir, prefix, tell, console))
        elif once:
            asyncio.run(print_screen(data_dir, prefix, tell, console))
        else:
            asyncio.run(watching(data_dir, prefix, tell, console, every))


@watch_app.command()
@examples("leyden status", "leyden status --json")
def status(as_json: AsJson = False, data_dir: StackDir = STACK_DIR) -> None:
    """Show the processes of the local stack, and the state of training.

    A process that is stopped or does not answer is not `up`, and the stack then is not either.
    """
    from leyden.cli.watch_view import print_json, print_processes, print_screen
    from leyden.cli.watching import view_of

    with clear_errors():
        view = view_of(data_dir)
        readable = view.state is not None and view.state.is_running and not view.starting and view.is_up("kafka")
        with progress() as tell:
            if as_json:
                asyncio.run(print_json(data_dir, None, tell, console, view if not readable else None))
                return
            print_processes(view, console)
            if readable:
                asyncio.run(print_screen(data_dir, None, tell, console))
