"""The `leyden` command: the commands of the local stack, and those of the other `…_app` modules."""

import asyncio
import shlex
from typing import Annotated, Literal

import typer

from leyden.cli.config_app import config_app
from leyden.cli.engineer_app import engineer_app
from leyden.cli.enqueue_app import enqueue
from leyden.cli.keys_app import keys_app
from leyden.cli.replay_app import replay_app
from leyden.cli.rollouts_app import models_app, rollouts_app
from leyden.cli.shell import DEMO_DIR, STACK_DIR, DataDir, RunFile, StackDir, clear_errors, console, examples, progress
from leyden.cli.train_app import train
from leyden.cli.watch_app import watch_app
from leyden.cli.work_app import work_app
from leyden.stack.config import Ports, StackConfig
from leyden.stack.errors import StackError
from leyden.stack.program import as_typed

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train any AI agent with reinforcement learning, without changing the agent.",
)
EngineOption = Annotated[
    Literal["auto", "vllm", "transformers"],
    typer.Option(help="Policy server; auto takes vLLM where it is installed, else transformers."),
]
ModelOption = Annotated[
    str,
    typer.Option(help="Model: smollm2-135m, tiny (random weights), a folder in Hugging Face format, or a hub id."),
]
AutoPorts = Annotated[bool, typer.Option("--auto-ports", help="Use free ports instead of the default ones.")]


@app.command()
@examples("leyden up --run-file run.yaml", "leyden up --model tiny --engine transformers --auto-ports")
def up(
    data_dir: DataDir = STACK_DIR,
    model: ModelOption = "smollm2-135m",
    engine: EngineOption = "auto",
    run_file: RunFile = None,
    auto_ports: AutoPorts = False,
) -> None:
    """Start Kafka, Redis, the policy server and all services on this machine.

    They keep running in the background until `leyden down`. `leyden status` shows them.
    """
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
        console.print(f"up: connect agents with [bold]OPENAI_BASE_URL={state.gateway_url}/v1[/]")
        console.print(
            f"API key: {data_dir}/secrets.json; details: `{as_typed()} status`; stop with `{as_typed()} down`"
        )


@app.command()
def down(data_dir: StackDir = STACK_DIR) -> None:
    """Stop the local stack. Its data is kept."""
    from leyden.stack.daemon import down as stop

    with clear_errors():
        console.print("stopped" if stop(data_dir) else "nothing was running")


@app.command("env")
@examples("eval $(leyden env)")
def env_(data_dir: StackDir = STACK_DIR) -> None:
    """Print the variables that connect agents and other programs to the local stack: `eval $(leyden env)`."""
    from leyden.client.claims import connection
    from leyden.client.local_stack import local_stack

    with clear_errors():
        stack = local_stack(data_dir)
        if stack is None:
            raise StackError(f"No stack runs in {data_dir.resolve()}. Start one with `{as_typed()} up`.")
        url = stack.gateway_url
        for name, value in connection(url, f"{url}/v1", stack.api_key).items():
            typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
@examples("leyden demo", "leyden demo --updates 2 --tasks 2 --samples 2 --no-require-learning")
def demo(
    data_dir: DataDir = DEMO_DIR,
    updates: Annotated[int, typer.Option(min=2, help="Number of updates (optimiser steps).")] = 9,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks per update.")] = 8,
    samples: Annotated[int, typer.Option(min=2, help="Rollouts per task.")] = 8,
    model: ModelOption = "smollm2-135m",
    engine: EngineOption = "auto",
    control: Annotated[bool, typer.Option("--control", help="Set all advantages to zero; nothing is learned.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the tasks and the trainer.")] = 0,
    require_learning: Annotated[bool, typer.Option(help="Exit with status 1 if the reward does not rise.")] = True,
    auto_ports: AutoPorts = False,
) -> None:
    """Train an agent to use a calculator while you watch.

    Starts a stack of its own, runs the agent on word problems, and trains the model after each round. Deletes the data
    of the last demo first. Takes 3 to 6 minutes on two cores.
    """
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
    prefix: Annotated[str, typer.Option(help="Prefix of every topic name.")] = "",
    replication_factor: Annotated[int, typer.Option(help="Replicas of each partition.")] = 1,
) -> None:
    """Create the missing topics on the Kafka cluster in KAFKA_BOOTSTRAP_SERVERS."""
    from leyden.kafka.admin import TopicMismatchError, ensure_topics
    from leyden.kafka.settings import KafkaSettings
    from leyden.kafka.types import KafkaError

    settings = KafkaSettings()
    with clear_errors():
        try:
            created = asyncio.run(ensure_topics(settings, prefix, replication_factor))
        except (KafkaError, TimeoutError, TopicMismatchError) as error:
            raise StackError(
                f"Kafka at {settings.bootstrap_servers} did not create the topics: {error}. "
                "Check KAFKA_BOOTSTRAP_SERVERS and --replication-factor (at most the number of brokers)."
            ) from error
        console.print(f"created {len(created)} topics")


PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=PASS_THROUGH, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run an unmodified program as one rollout: `leyden run -- python my_agent.py`."""
    _of_agents(context)


@app.command(context_settings=PASS_THROUGH, add_help_option=False)
def runner(context: typer.Context) -> None:
    """Claim tasks and run an agent on them: `leyden runner my_module:agent`."""
    _of_agents(context)


def _of_agents(context: typer.Context) -> None:
    from leyden.cli.agents import main

    raise typer.Exit(main([str(context.info_name), *context.args]))


app.command()(train)
app.command()(enqueue)
app.add_typer(watch_app)
app.add_typer(rollouts_app)
app.add_typer(work_app)
app.add_typer(engineer_app)
app.add_typer(replay_app, name="replay")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(config_app, name="config")
