"""The commands and their options; each hands over to the module that does the work."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from leyden.cli.progress import Progress
from leyden.stack.config import Ports, StackConfig
from leyden.stack.errors import StackError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Leyden: train any agent with reinforcement learning, unchanged."
)
console = Console()

DataDir = Annotated[Path, typer.Option(help="Folder of the local stack: logs, Kafka's and Redis' data, checkpoints.")]
EngineOption = Annotated[str, typer.Option(help="Policy server: auto, vllm or transformers.")]
ModelOption = Annotated[str, typer.Option(help="smollm2-135m, tiny, a Hugging Face folder, or a hub id.")]
RunFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="YAML: reward, credit, trainer, policy.")
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


@app.command()
def up(
    data_dir: DataDir = STACK_DIR,
    model: ModelOption = "smollm2-135m",
    engine: EngineOption = "auto",
    run_file: RunFile = None,
    auto_ports: Annotated[bool, typer.Option(help="Take free ports instead of the usual ones.")] = False,
) -> None:
    """Start Kafka, Redis, the policy server and all services on this machine, and leave them running."""
    from leyden.stack.daemon import up_detached

    config = StackConfig.model_validate(
        {
            "data_dir": data_dir,
            "model": model,
            "engine": engine,
            "run_file": run_file,
            "ports": Ports.auto() if auto_ports else Ports(),
        }
    )
    with clear_errors():
        with progress() as tell:
            state = up_detached(config, tell)
        console.print(f"up: agents use [bold]OPENAI_BASE_URL={state.gateway_url}/v1[/]")
        console.print(f"the key is in {data_dir}/secrets.json; `leyden status` shows more, `leyden down` ends it")


@app.command()
def down(data_dir: DataDir = STACK_DIR) -> None:
    """Stop the local stack; its data stays."""
    from leyden.stack.daemon import down as stop

    with clear_errors():
        console.print("stopped" if stop(data_dir) else "nothing was running")


@app.command()
def status(data_dir: DataDir = STACK_DIR) -> None:
    """Show what runs, where, and since which restart."""
    from leyden.stack.state import DataFolder

    state = DataFolder(data_dir).read_state()
    console.print(f"{state.phase}  {state.doing}{state.error}", highlight=False)
    if state.is_running:
        table = Table("process", "pid", "restarts", "log")
        for process in state.processes:
            table.add_row(process.name, str(process.pid or "-"), str(process.deaths), str(process.log))
        console.print(table)
        console.print(f"gateway {state.gateway_url}  kafka {state.kafka_servers}  redis {state.redis_url}")


@app.command()
def demo(
    data_dir: DataDir = DEMO_DIR,
    updates: Annotated[int, typer.Option(min=2, help="Optimiser steps.")] = 9,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks an update.")] = 8,
    samples: Annotated[int, typer.Option(min=2, help="Rollouts a task.")] = 8,
    model: ModelOption = "smollm2-135m",
    engine: EngineOption = "auto",
    control: Annotated[bool, typer.Option(help="Set advantages to zero: the run that must not learn.")] = False,
    seed: Annotated[int, typer.Option(help="Of the tasks and of the trainer.")] = 0,
    require_learning: Annotated[bool, typer.Option(help="Fail when the reward did not rise.")] = True,
    auto_ports: Annotated[bool, typer.Option(help="Take free ports instead of the usual ones.")] = False,
) -> None:
    """Run the whole loop: an agent that knows nothing of Leyden learns arithmetic word problems with a calculator."""
    from leyden.cli.demo.plan import DemoPlan
    from leyden.cli.demo.run import run_demo

    plan = DemoPlan(
        data_dir, updates, tasks, samples, model, engine, control, seed, require_learning and not control, auto_ports
    )
    with clear_errors():
        raise typer.Exit(run_demo(plan, console))


@app.command()
def replay(
    name: Annotated[str, typer.Option(help="Of the experiment; becomes the prefix of its topics.")],
    settings: RunFile = None,
    start: Annotated[datetime | None, typer.Option("--from", help="First record's time; default: all.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Time after the last record; default: now.")] = None,
    data_dir: DataDir = DEMO_DIR,
    source_prefix: Annotated[str | None, typer.Option(help="Of the topics to replay; default: the stack's.")] = None,
    train: Annotated[bool, typer.Option(help="Train a candidate version on the replayed transitions.")] = True,
) -> None:
    """Run reward, credit and trainer over recorded topics again, with the same settings or others."""
    from leyden.replay.run import ReplayPlan, run_replay

    plan = ReplayPlan(name, settings, start, end, data_dir, source_prefix, train)
    with clear_errors():
        with progress() as tell:
            done = asyncio.run(
                run_replay(plan, tell, lambda line: console.print(line, soft_wrap=True, highlight=False))
            )
        raise typer.Exit(done)


@app.command()
def topics(
    prefix: Annotated[str, typer.Option(help="Before every topic's name.")] = "",
    replication_factor: Annotated[int, typer.Option(help="Copies of each partition.")] = 1,
) -> None:
    """Create the topics on the cluster that KAFKA_BOOTSTRAP_SERVERS names."""
    from leyden.kafka.admin import ensure_topics
    from leyden.kafka.settings import KafkaSettings

    created = asyncio.run(ensure_topics(KafkaSettings(), prefix, replication_factor))
    console.print(f"created {len(created)} topics")


@app.command()
def runner(
    agent: Annotated[str, typer.Argument(help="`package.module:function`, called with each claim.")],
    concurrency: Annotated[int, typer.Option(min=1, help="Rollouts at a time.")] = 8,
) -> None:
    """Claim tasks from the gateway (LEYDEN_GATEWAY_URL, LEYDEN_API_KEY) and run an agent function on them."""
    import logging
    from pkgutil import resolve_name

    from leyden.client import LeydenError, Runner

    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        Runner(resolve_name(agent), concurrency=concurrency).run()
    except (ImportError, AttributeError, ValueError, LeydenError) as error:
        console.print(f"[bold red]leyden:[/] {agent}: {error}", highlight=False)
        raise typer.Exit(1) from error
