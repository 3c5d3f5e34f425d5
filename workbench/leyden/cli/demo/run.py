"""Runs the demo: a training of the calculator agent on a new stack, and a report."""

import shutil
import sys
import time
from pathlib import Path

import yaml
from rich.console import Console

from leyden.cli.demo.plan import DemoPlan
from leyden.cli.demo.report import write_report
from leyden.client.named import Named
from leyden.stack.config import Ports, StackConfig
from leyden.stack.daemon import reset
from leyden.stack.errors import StackError
from leyden.stack.requirements import own_kafka
from leyden.training.plan import TrainPlan
from leyden.training.run import run_training
from leyden.training.schedule import Schedule
from leyden.training.stacks import RunningStack
from leyden.training.task_set import TaskSet

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "calculator"
POLICY = "policy"


def run_demo(plan: DemoPlan, console: Console) -> int:
    """Run the demo and write its report. Returns the exit status: 0 if it finished and, where required, learned."""
    if not EXAMPLE.is_dir():
        raise StackError(f"The demo's agent, {EXAMPLE}, is missing. Run the demo from a clone of the repository.")
    reset(plan.data_dir)
    timings: dict[str, float] = {}
    training, state = run_training(_training(plan), console, started=lambda stack: timings.update(_start_times(stack)))
    timings["loop"] = state.elapsed_s
    return write_report(plan, training, state, timings, console)


def _start_times(stack: RunningStack) -> dict[str, float]:
    return stack.folder.read_state().timings_s


def _training(plan: DemoPlan) -> TrainPlan:
    return TrainPlan(
        agent=Named("calculator.rollout", "run", EXAMPLE),
        tasks=_tasks(plan),
        schedule=Schedule(updates=plan.updates, groups_per_step=plan.tasks),
        samples=plan.samples,
        stack=_config(plan),
        concurrency=plan.tasks * plan.samples,
        ends_early=False,
    )


def _config(plan: DemoPlan) -> StackConfig:
    run_file = plan.data_dir.resolve() / "run" / "run.yaml"
    chosen = yaml.safe_load((EXAMPLE / "run.yaml").read_text())
    changed = {"groups_per_step": plan.tasks, "seed": plan.seed, "max_steps": plan.updates}
    chosen["trainer"] |= changed | ({"advantage_scale": 0.0} if plan.control else {})
    run_file.parent.mkdir(parents=True, exist_ok=True)
    run_file.write_text(yaml.safe_dump(chosen, sort_keys=False))
    shutil.copytree(
        EXAMPLE / "calculator", run_file.parent / "calculator", ignore=shutil.ignore_patterns("__pycache__")
    )
    # On an external broker the topics of earlier runs remain, so each run gets its own prefix.
    prefix = "" if own_kafka() else f"demo-{int(time.time())}."
    return StackConfig(
        data_dir=plan.data_dir,
        model=plan.model,
        engine=plan.engine,  # type: ignore[arg-type]
        policy=POLICY,
        run_file=run_file,
        topic_prefix=prefix,
        ports=Ports.auto() if plan.auto_ports else Ports(),
    )


def _tasks(plan: DemoPlan) -> TaskSet:
    """The tasks of all updates, in order; the same seed gives the same tasks."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    from calculator.tasks import generate  # type: ignore[import-not-found]

    tasks = [
        {"task_id": f"calculator-{plan.seed}-{update}-{index}", **task}
        for update in range(plan.updates)
        for index, task in enumerate(generate(plan.tasks, seed=plan.seed * 10_000 + update))
    ]
    return TaskSet(train=tuple(tasks), name="demo", seed=plan.seed, shuffled=False)
