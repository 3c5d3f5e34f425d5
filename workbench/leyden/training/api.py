"""`leyden.train`: trains an agent from a script or a notebook."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from leyden.training.door import Asked, plan_of
from leyden.training.report import report_lines
from leyden.training.results import Training
from leyden.training.run import run_training


def train(
    agent: str | Callable[..., Any],
    tasks: str | Path | Sequence[Any],
    reward: str | Callable[..., Any] | None = None,
    **options: Any,
) -> Training:
    """Train `agent` on `tasks`, and print the curve as it goes. Returns the curve, the versions and the best one.

    `agent` is called with a `leyden.client.Claim`; also `"my_agent.py:agent"`. `tasks` is a file (.jsonl, .parquet) or
    a list of inputs or of `{"input": …, "metadata": …}`. `reward` is `"my_rewards.py:score"`, or a function of an
    importable module, that is called with the recorded rollout; without it the number that the agent returns is the
    reward. `options` are those of `leyden train`, such as `updates=20`, `holdout=0.2`; see `Asked`.

    Interrupted, or run again with more `updates`, it goes on where it was. Raises `StackError`, which says what to do.
    """
    plan = plan_of(Asked(agent=agent, tasks=tasks, reward=reward, **options))
    console = Console()
    training, _ = run_training(plan, console)
    for line in report_lines(training):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return training
