"""`leyden run` and `leyden runner`: the commands of an agent's own environment, which has the client library only."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn

from leyden.cli.launch import Launch, launch
from leyden.client import GatewayRefusedError, GatewayUnavailableError, LeydenError, Runner
from leyden.client.executors import Command

NOT_FOUND, USAGE, AWAY, REFUSED = 127, 64, 69, 77
"""Exit codes, as shells and sysexits.h have them."""
EPILOG = "Gateway and key: --gateway and --api-key, or LEYDEN_GATEWAY_URL and LEYDEN_API_KEY."


def main(argv: Sequence[str]) -> int:
    """Run the command that `argv` names; its exit code."""
    options = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="leyden: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return int(options.work(options))
    except FileNotFoundError as error:
        return _failed(NOT_FOUND, f"{error.filename or error}: there is no such program")
    except GatewayUnavailableError as error:
        return _failed(AWAY, str(error))
    except GatewayRefusedError as error:
        return _failed(REFUSED, str(error))
    except (LeydenError, ImportError, AttributeError, ValueError) as error:
        return _failed(USAGE, str(error))


def parser() -> argparse.ArgumentParser:
    """Both commands."""
    top = argparse.ArgumentParser("leyden", description="Run agents.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _run_options(commands.add_parser("run", help=RUN_HELP, description=RUN_HELP, epilog=EPILOG))
    _runner_options(commands.add_parser("runner", help=RUNNER_HELP, description=RUNNER_HELP, epilog=EPILOG))
    return top


RUN_HELP = "Run an unmodified program as one rollout: `leyden run -- python my_agent.py`."
RUNNER_HELP = "Claim tasks and run an agent on them: a function, or a program for each."


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=_run)
    parser.add_argument("--name", help="of the agent; default: the script's")
    parser.add_argument("--task", metavar="JSON", help="the task's input, on the program's stdin; @FILE reads a file")
    parser.add_argument("--task-id", help="default: a new one")
    parser.add_argument("--group", metavar="ID", help="rollouts of one task, compared with each other")
    parser.add_argument("--group-size", type=int, metavar="N", help="how many rollouts the group has")
    parser.add_argument("--mode", choices=["train", "validation"], default="train")
    parser.add_argument("--timeout", type=float, default=86_400.0, metavar="S", help="then the program is killed")
    parser.add_argument("--claim", action="store_true", help="run on a task of the queue, once")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="for the gateway, or a task")
    _shared_options(parser)
    parser.add_argument("program", nargs=argparse.REMAINDER, help="after `--`: the program and its arguments")


def _runner_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=_runner)
    parser.add_argument("agent", nargs="?", help="`package.module:function`, called with each claim")
    parser.add_argument("--command", metavar="LINE", help="a program instead, such as 'python my_agent.py'")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="rollouts at a time")
    parser.add_argument(
        "--mode", choices=["auto", "async", "thread", "process"], default="auto", help="only process can stop any code"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="end after so many rollouts")
    parser.add_argument("--until-empty", action="store_true", help="end when the queue is empty")
    parser.add_argument("--drain", type=float, default=60.0, metavar="S", help="after SIGTERM, for what still runs")
    parser.add_argument("--no-progress", action="store_true", help="no bar, no lines")
    parser.add_argument("--name", help="of the agent; default: the function's or the script's")
    _shared_options(parser)


def _shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reward-from", metavar="KEY", help="of the JSON on the last line of stdout; a.b, or . itself")
    parser.add_argument("--gateway", metavar="URL", help="default: LEYDEN_GATEWAY_URL")
    parser.add_argument("--api-key", metavar="KEY", help="default: LEYDEN_API_KEY")


def _run(options: argparse.Namespace) -> int:
    argv = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not argv:
        _misused("say which program: leyden run -- python my_agent.py")
    plan = Launch(
        command=Command(tuple(argv), options.reward_from),
        name=options.name,
        task_input=_task(options.task),
        task_id=options.task_id,
        group_id=options.group,
        group_size=options.group_size,
        mode=options.mode,
        timeout_s=options.timeout,
        claim=options.claim,
        wait_s=options.wait,
    )
    return launch(plan, options.gateway, options.api_key)


def _runner(options: argparse.Namespace) -> int:
    if (options.agent is None) == (options.command is None):
        _misused("say either an agent (package.module:function) or --command")
    Runner(
        Command.parse(options.command, options.reward_from) if options.command else _agent(options.agent),
        options.gateway,
        options.api_key,
        concurrency=options.concurrency,
        mode=options.mode,
        limit=options.limit,
        until_empty=options.until_empty,
        progress=False if options.no_progress else None,
        name=options.name,
        drain_s=options.drain,
    ).run()
    return 0


def _agent(name: str) -> Any:
    """The function; modules of the working directory are found, as with `python -m`."""
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path takes text
        sys.path.insert(0, here)
    return resolve_name(name)


def _task(text: str | None) -> Any:
    """JSON as its value; any other text as it is."""
    if text is None:
        return None
    if text.startswith("@"):
        text = Path(text[1:]).read_text()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _misused(message: str) -> NoReturn:
    sys.exit(_failed(USAGE, message))


def _failed(code: int, message: str) -> int:
    print(f"leyden: {message}", file=sys.stderr)
    return code
