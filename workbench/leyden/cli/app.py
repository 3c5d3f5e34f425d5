"""The commands and their options; each hands over to the module that does the work."""

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from leyden.cli.engineer_app import engineer_app
from leyden.cli.keys_app import keys_app
from leyden.cli.replay_app import replay_app
from leyden.cli.shell import DEMO_DIR, STACK_DIR, DataDir, RunFile, clear_errors, console, progress
from leyden.cli.work_app import work_app
from leyden.stack.config import Ports, StackConfig
from leyden.stack.program import as_typed

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Leyden: train any agent with reinforcement learning, unchanged."
)
EngineOption = Annotated[str, typer.Option(help="Policy server: auto, vllm or transformers.")]
ModelOption = Annotated[str, typer.Option(help="smollm2-135m, tiny, a Hugging Face folder, or a hub id.")]


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
        console.print(
            f"the key is in {data_dir}/secrets.json; `{as_typed()} status` shows more, `{as_typed()} down` ends it"
        )


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
        data_dir=data_dir,
        updates=updates,
        tasks=tasks,
        samples=samples,
        model=model,
        engine=engine,
        control=control,
        seed=seed,
        require_learning=require_learning and not control,
        auto_ports=auto_ports,
    )
    with clear_errors():
        raise typer.Exit(run_demo(plan, console))


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


PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=PASSED_ON, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run an unmodified program as one rollout: `leyden run -- python my_agent.py` (`leyden run --help`)."""
    _of_agents(context)


@app.command(context_settings=PASSED_ON, add_help_option=False)
def runner(context: typer.Context) -> None:
    """Claim tasks from the gateway and run an agent on them, a function or a program (`leyden runner --help`)."""
    _of_agents(context)


def _of_agents(context: typer.Context) -> None:
    from leyden.cli.agents import main

    raise typer.Exit(main([str(context.info_name), *context.args]))


app.add_typer(engineer_app)
app.add_typer(work_app)
app.add_typer(replay_app, name="replay")
app.add_typer(keys_app, name="keys")
