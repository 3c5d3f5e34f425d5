"""`leyden train`: options only."""

import shlex
from typing import Annotated, Literal

import typer

from leyden.cli.shell import STACK_DIR, DataDir, RunFile, clear_errors, console, examples, say

TASKS, TRAINING, AGENT, STACK = "Tasks", "Training", "Agent", "Stack"
"""Sections of the help text."""

AgentName = Annotated[
    str | None,
    typer.Argument(
        metavar="AGENT", help="Function that is called with each claim: file.py:function or module:function."
    ),
]
AgentCommand = Annotated[
    str | None,
    typer.Option("--command", rich_help_panel=AGENT, help="Program to run instead, such as 'python my_agent.py'."),
]
RewardFrom = Annotated[
    str | None,
    typer.Option(rich_help_panel=AGENT, help="With --command: key of the reward in the JSON of its last line."),
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=AGENT, help="Rollouts at a time. Default: those of one update.")
]
AgentMode = Annotated[
    Literal["auto", "async", "thread", "process"],
    typer.Option("--mode", rich_help_panel=AGENT, help="How the function runs; a process can be stopped at a timeout."),
]
Timeout = Annotated[float, typer.Option(min=0.001, rich_help_panel=AGENT, help="Time limit of an attempt, in seconds.")]
TaskFile = Annotated[
    str,
    typer.Option("--tasks", rich_help_panel=TASKS, help="A .jsonl or .parquet file, or hf:DATASET, one task a row."),
]
InputColumn = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=TASKS, help="Column that the agent gets; repeatable. Default: `input`."),
]
MetadataColumns = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=TASKS,
        metavar="A,B,…",
        help="Columns for rewards, hidden from the agent; * for all others. Default: `metadata`.",
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(rich_help_panel=TASKS, help="Column with the row's id. Default: `task_id`, else a hash of the row."),
]
Holdout = Annotated[
    float,
    typer.Option(
        min=0, rich_help_panel=TASKS, help="Tasks to evaluate on and never train: a share, or from 1 a number."
    ),
]
EvaluateEvery = Annotated[
    int, typer.Option(min=1, rich_help_panel=TASKS, help="Updates between two evaluations, besides the first and last.")
]
HeldOutSamples = Annotated[int, typer.Option(min=1, rich_help_panel=TASKS, help="Rollouts per held-out task.")]
Name = Annotated[str, typer.Option(rich_help_panel=TASKS, help="Prefix of the task ids.")]
RewardName = Annotated[
    str | None,
    typer.Option(
        "--reward",
        rich_help_panel=TRAINING,
        help="Function that gives a recorded rollout its reward: file.py:function, module:function or an installed "
        "one. Default: the number that the agent returns, or the run file's rules.",
    ),
]
Updates = Annotated[int, typer.Option(min=1, rich_help_panel=TRAINING, help="Updates (optimiser steps) in all.")]
Groups = Annotated[int, typer.Option("--groups", min=1, rich_help_panel=TRAINING, help="Tasks per update.")]
Samples = Annotated[
    int, typer.Option(min=2, rich_help_panel=TRAINING, help="Rollouts per task; they are compared with each other.")
]
MaxStaleness = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=TRAINING,
        help="Train on samples up to this many versions old; from 1 on, agents work while the trainer learns.",
    ),
]
LearningRate = Annotated[
    float | None, typer.Option(min=0, rich_help_panel=TRAINING, help="Default: the run file's, else 5e-4.")
]
Seed = Annotated[int, typer.Option(rich_help_panel=TRAINING, help="Seed of the held-out tasks and of their order.")]
Model = Annotated[str, typer.Option(rich_help_panel=STACK, help="Model: smollm2-135m, a folder, or a hub id.")]
Engine = Annotated[Literal["auto", "vllm", "transformers"], typer.Option(rich_help_panel=STACK, help="Policy server.")]
AutoPorts = Annotated[
    bool, typer.Option("--auto-ports", rich_help_panel=STACK, help="Use free ports instead of the default ones.")
]


@examples(
    "leyden train my_agent.py:agent --tasks tasks.jsonl --reward my_rewards.py:score --updates 20",
    "leyden train --command 'python my_agent.py' --tasks tasks.jsonl --reward my_rewards.py:score",
)
def train(
    tasks: TaskFile,
    agent: AgentName = None,
    command: AgentCommand = None,
    reward: RewardName = None,
    updates: Updates = 20,
    groups: Groups = 8,
    samples: Samples = 8,
    max_staleness: MaxStaleness = 0,
    learning_rate: LearningRate = None,
    run_file: RunFile = None,
    seed: Seed = 0,
    holdout: Holdout = 0.2,
    evaluate_every: EvaluateEvery = 5,
    held_out_samples: HeldOutSamples = 1,
    input_column: InputColumn = None,
    metadata_columns: MetadataColumns = None,
    id_column: IdColumn = None,
    name: Name = "train",
    concurrency: Concurrency = None,
    mode: AgentMode = "auto",
    timeout: Timeout = 600.0,
    reward_from: RewardFrom = None,
    model: Model = "smollm2-135m",
    engine: Engine = "auto",
    auto_ports: AutoPorts = False,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Train an agent of your own on this machine, and watch its reward.

    Starts the stack if none runs, and samples the tasks of each update from the version before it. Some tasks are held
    out: they are evaluated before, every few updates, and after. Ctrl-C stops it; the same command goes on.
    """
    from leyden.client.executors import Command
    from leyden.training.door import Asked, plan_of
    from leyden.training.report import report_lines
    from leyden.training.run import run_training

    if (agent is None) == (command is None):
        raise typer.BadParameter("give either an AGENT, such as my_agent.py:agent, or --command")
    with clear_errors():
        asked = Asked(
            agent=agent if agent is not None else Command(tuple(shlex.split(command or "")), reward_from),
            tasks=tasks,
            reward=reward,
            updates=updates,
            holdout=holdout,
            evaluate_every=evaluate_every,
            held_out_samples=held_out_samples,
            groups=groups,
            samples=samples,
            max_staleness=max_staleness,
            learning_rate=learning_rate,
            run_file=run_file,
            name=name,
            input_columns=input_column or (),
            metadata_columns=metadata_columns,
            id_column=id_column,
            seed=seed,
            concurrency=concurrency,
            mode=mode,
            timeout_s=timeout,
            data_dir=data_dir,
            model=model,
            engine=engine,
            auto_ports=auto_ports,
        )
        plan = plan_of(asked)
        try:
            training, _ = run_training(plan, console)
        except KeyboardInterrupt:
            say("stopped; run the same command again to go on from here")
            raise typer.Exit(130) from None
        for line in report_lines(training):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
