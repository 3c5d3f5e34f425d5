"""`leyden run` and `leyden runner`. They import only the client library, which an agent's environment has."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from leyden.cli.launch import Launch, launch
from leyden.client import GatewayRefusedError, GatewayUnavailableError, LeydenError, Runner
from leyden.client.claims import inherited
from leyden.client.errors import ConfigurationError
from leyden.client.executors import Command
from leyden.client.local_stack import data_folder, local_stack
from leyden.client.named import Named

FAILED, NOT_FOUND, USAGE, AWAY, REFUSED = 1, 127, 64, 69, 77
"""Exit codes of shells and sysexits.h."""
RUN_HELP = "Run an unmodified program as one rollout."
RUN_EPILOG = """examples:
  leyden run -- python my_agent.py --verbose
  leyden run --task '{"question": "1+2?"}' --reward-from score -- ./agent
  leyden run --claim -- python my_agent.py
  leyden run --model policy -- claude -p "Fix the failing test"

The program gets the gateway's URL and a key in OPENAI_BASE_URL, OPENAI_API_KEY and similar variables.
Exit code: the program's; 124 after a timeout, 75 if there was no task or the lease was lost, 69 if the gateway
did not answer, 77 if it refused the key."""
RUNNER_HELP = "Claim tasks from the queue and run an agent on each: a Python function or a program."
RUNNER_EPILOG = """examples:
  leyden runner my_module:agent --concurrency 16
  leyden runner --command 'python my_agent.py' --until-empty

A program gets the same variables as with `leyden run`. The first failure of each kind is shown with its traceback.
Exit code: 1 if every rollout failed, 69 and 77 as for `leyden run`, else 0."""


def main(argv: Sequence[str]) -> int:
    """Run the command in `argv`; its exit code."""
    options = parser().parse_args(argv)
    _log_to_stderr()
    try:
        return int(options.work(options))
    except FileNotFoundError as error:
        return _failed(NOT_FOUND, f"no such file or program: {error.filename or error}")
    except GatewayUnavailableError as error:
        return _failed(AWAY, str(error))
    except GatewayRefusedError as error:
        return _failed(REFUSED, str(error))
    except (LeydenError, ImportError, AttributeError, ValueError) as error:
        return _failed(USAGE, str(error))


def _log_to_stderr() -> None:
    """Log our own lines, and of other libraries warnings only, whatever level they set for themselves."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("leyden: %(message)s"))
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.partition(".")[0] == "leyden")
    logging.basicConfig(handlers=[handler])
    logging.getLogger("leyden").setLevel(logging.INFO)


def parser() -> argparse.ArgumentParser:
    """The parser of both commands."""
    top = argparse.ArgumentParser("leyden", description="Run agents.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser(
        "run",
        usage="leyden run [options] -- PROGRAM [ARGUMENT ...]",
        help=RUN_HELP,
        description=RUN_HELP,
        epilog=RUN_EPILOG,
        formatter_class=raw,
    )
    runner = commands.add_parser(
        "runner",
        usage="leyden runner [options] (AGENT | --command LINE)",
        help=RUNNER_HELP,
        description=RUNNER_HELP,
        epilog=RUNNER_EPILOG,
        formatter_class=raw,
    )
    _run_options(run)
    _runner_options(runner)
    return top


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=_run)
    parser.add_argument("--name", help="name of the agent (default: the script's name)")
    parser.add_argument("--task", metavar="JSON", help="task input, given to the program on stdin; @FILE reads a file")
    parser.add_argument("--task-id", metavar="ID", help="id of the task (default: a new one)")
    parser.add_argument("--group", metavar="ID", help="group of rollouts that are compared with each other")
    parser.add_argument("--group-size", type=int, metavar="N", help="number of rollouts in the group")
    parser.add_argument(
        "--mode", choices=["train", "validation"], default="train", help="whether to train on it (default: train)"
    )
    parser.add_argument(
        "--timeout", type=float, default=86_400.0, metavar="S", help="kill the program after S seconds (default: 86400)"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="set OPENAI_MODEL, ANTHROPIC_MODEL and similar variables (default: unchanged)"
    )
    parser.add_argument("--claim", action="store_true", help="claim one task from the queue and run on it")
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="S", help="wait S seconds for the gateway or a task (default: 30)"
    )
    _shared_options(parser)
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="-- PROGRAM [ARGUMENT ...]", help="the program and its arguments"
    )


def _runner_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(work=_runner)
    parser.add_argument(
        "agent",
        nargs="?",
        metavar="AGENT",
        help="function that is called with each claim: module:function or file.py:function",
    )
    parser.add_argument("--command", metavar="LINE", help="program to run instead, such as 'python my_agent.py'")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="rollouts at a time (default: 8)")
    parser.add_argument(
        "--mode",
        choices=["auto", "async", "thread", "process"],
        default="auto",
        help="how the function runs; only a process can be stopped at a timeout (default: auto: async or thread)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N rollouts (default: no limit)")
    parser.add_argument("--until-empty", action="store_true", help="stop when the queue is empty")
    parser.add_argument(
        "--drain",
        type=float,
        default=60.0,
        metavar="S",
        help="after SIGTERM, wait S seconds for rollouts (default: 60)",
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress")
    parser.add_argument("--name", help="name of the agent (default: the function's or script's name)")
    _shared_options(parser)


def _shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reward-from",
        metavar="KEY",
        help="take the reward from this key of the JSON in the last line of stdout (a.b: nested, .: the line itself)",
    )
    parser.add_argument(
        "--gateway", metavar="URL", help="URL of the gateway (default: LEYDEN_GATEWAY_URL, else the local stack's)"
    )
    parser.add_argument("--api-key", metavar="KEY", help="API key (default: LEYDEN_API_KEY, else the local stack's)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of the local stack (default: of .leyden/stack and .leyden/demo the one that runs, or ran last)",
    )


def _door(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """URL and key: those that are given, else those of the environment (None), else the local stack's."""
    url, key = options.gateway, options.api_key
    if url or os.environ.get("LEYDEN_GATEWAY_URL") or inherited() is not None:
        return url, key
    folder = options.data_dir or data_folder()
    stack = local_stack(folder)
    if stack is None:
        raise ConfigurationError(
            f"no gateway given, and no stack runs in {folder}: start one with `leyden up`, or pass --gateway, "
            "LEYDEN_GATEWAY_URL, or the --data-dir of a running stack"
        )
    return stack.gateway_url, key or os.environ.get("LEYDEN_API_KEY") or stack.api_key


def _run(options: argparse.Namespace) -> int:
    argv = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not argv:
        _misused("no program given; for example: leyden run -- python my_agent.py")
    plan = Launch(
        command=Command(tuple(argv), options.reward_from),
        name=options.name,
        task_input=_task(options.task),
        task_id=options.task_id,
        group_id=options.group,
        group_size=options.group_size,
        mode=options.mode,
        timeout_s=options.timeout,
        model=options.model,
        claim=options.claim,
        wait_s=options.wait,
    )
    return launch(plan, *_door(options))


def _runner(options: argparse.Namespace) -> int:
    if (options.agent is None) == (options.command is None):
        _misused("give either an agent (package.module:function) or --command")
    runner = Runner(
        Command.parse(options.command, options.reward_from) if options.command else Named.parse(options.agent).load(),
        *_door(options),
        concurrency=options.concurrency,
        mode=options.mode,
        limit=options.limit,
        until_empty=options.until_empty,
        progress=False if options.no_progress else None,
        name=options.name,
        drain_s=options.drain,
    )
    runner.run()
    return FAILED if runner.tally.done and runner.tally.failed == runner.tally.done else 0


def _task(text: str | None) -> Any:
    """The parsed JSON; text that is not JSON as it is."""
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
