"""Makes a plan of what the user gave, and finds what is wrong with it before anything starts."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from leyden.client.errors import ConfigurationError
from leyden.client.executors import Command, Mode
from leyden.client.named import Named, check_takes
from leyden.settings import ServiceSettings
from leyden.stack.config import Ports, StackConfig
from leyden.stack.errors import StackError
from leyden.stack.plan import python_env
from leyden.stack.run_file import run_file_problems
from leyden.training.plan import Agent, TrainPlan
from leyden.training.run_file import RunFile, made_run_file, read_run_file, write_run_file
from leyden.training.schedule import Schedule
from leyden.training.stacks import check_running
from leyden.training.task_rows import Source, jsonable
from leyden.training.task_set import Task, TaskSet, task_set
from leyden.training.tasks import TaskSource, columns_of, content_id, tasks_of

FUNCTIONS = "leyden.reward_functions"
"""Entry points of reward functions that packages bring."""
MAX_CONCURRENCY = 128
FindProblems = Callable[[Path, dict[str, str]], list[str]]
"""(run file, environment of the services) → what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user gave, as the options of `leyden train` and the parameters of `leyden.train` name it."""

    agent: str | Command | Callable[..., Any]
    tasks: str | Path | Sequence[Task]
    reward: str | Callable[..., Any] | None = None
    updates: int = 20
    holdout: float = 0.2
    evaluate_every: int = 5
    held_out_samples: int = 1
    groups: int = 8
    samples: int = 8
    max_staleness: int = 0
    learning_rate: float | None = None
    run_file: Path | None = None
    name: str = "train"
    input_columns: Sequence[str] = ()
    metadata_columns: str | None = None
    id_column: str | None = None
    seed: int = 0
    concurrency: int | None = None
    mode: Mode = "auto"
    timeout_s: float = 600.0
    data_dir: Path = Path(".leyden/stack")
    model: str = "smollm2-135m"
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    auto_ports: bool = False


def plan_of(asked: Asked, problems_of: FindProblems = run_file_problems) -> TrainPlan:
    """The plan, with its run file written to the data folder. Raises StackError, which says what to correct."""
    agent = _agent(asked.agent)
    tasks = _tasks(asked)
    reward, folder = _reward(asked.reward)
    sections = _sections(asked, reward)
    _check_rewarded(asked, sections)
    stack = _stack(asked, folder)
    assert stack.run_file is not None
    if asked.run_file and (problems := problems_of(asked.run_file, python_env(stack) | stack.env)):
        raise StackError("The run file is wrong:\n" + "\n".join(problems))
    write_run_file(stack.run_file, sections)
    check_running(stack)
    return TrainPlan(
        agent=agent,
        tasks=tasks,
        schedule=Schedule(
            updates=asked.updates,
            groups_per_step=sections["trainer"]["groups_per_step"],
            evaluate_every=asked.evaluate_every if tasks.held_out else None,
            max_staleness=asked.max_staleness,
        ),
        samples=asked.samples,
        held_out_samples=asked.held_out_samples,
        stack=stack,
        concurrency=asked.concurrency or min(MAX_CONCURRENCY, asked.groups * asked.samples),
        mode=asked.mode,
        timeout_s=asked.timeout_s,
    )


def _agent(given: str | Command | Callable[..., Any]) -> Agent:
    if isinstance(given, Command):
        return given
    try:
        if not isinstance(given, str):
            check_takes(given, "claim")
            return given
        named = Named.parse(given)
        check_takes(named.load(), "claim")
    except ConfigurationError as error:
        raise StackError(f"agent: {error}.") from error
    return named


def _reward(given: str | Callable[..., Any] | None) -> tuple[str | None, Path | None]:
    """The run file's entry for the function, and the folder that it is imported from."""
    if given is None:
        return None, None
    try:
        if isinstance(given, str) and ":" not in given:
            return _installed(given), None
        named = Named.parse(given) if isinstance(given, str) else _named(given)
        check_takes(named.load(), "rollout")
    except ConfigurationError as error:
        raise StackError(f"reward function: {error}.") from error
    return str(named), named.folder


def _installed(name: str) -> str:
    known = sorted(point.name for point in entry_points(group=FUNCTIONS))
    if name not in known:
        raise ConfigurationError(
            f"{name!r} is not installed ({', '.join(known)} is); for your own write file.py:function or module:function"
        )
    return name


def _named(function: Callable[..., Any]) -> Named:
    """A function object by its name: reward functions run in a process of their own, which imports them."""
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "")
    if module == "__main__" or "<" in name or not name:
        raise ConfigurationError(
            "it must be importable by another process: put it into a file of its own, such as my_rewards.py, "
            "and pass 'my_rewards.py:score'"
        )
    file = getattr(sys.modules[module], "__file__", None)
    folder = Path(file).resolve().parents[module.count(".")] if file else Path.cwd()
    return Named(module, name, folder)


def _tasks(asked: Asked) -> TaskSet:
    given = asked.tasks
    if isinstance(given, str | Path):
        source = TaskSource(
            source=Source(str(given)),
            input_columns=list(asked.input_columns),
            metadata_columns=columns_of(asked.metadata_columns),
            id_column=asked.id_column,
        )
        tasks = list(tasks_of(source))
        if not tasks:
            raise StackError(f"{given} has no tasks.")
    else:
        tasks = [_task(number, task) for number, task in enumerate(given, 1)]
        if not tasks:
            raise StackError("There are no tasks.")
    return task_set(tasks, asked.holdout, asked.seed, asked.name)


def _task(number: int, given: Any) -> Task:
    """A task given as an object: `{"input": …, "metadata": …}`, or the input alone."""
    where = f"Task {number}"
    task = given if isinstance(given, dict) and "input" in given else {"input": given}
    if unknown := set(task) - {"input", "metadata", "task_id"}:
        raise StackError(f"{where} has unknown fields: {', '.join(sorted(map(str, unknown)))}.")
    content = {"input": jsonable(task["input"], where), "metadata": jsonable(task.get("metadata") or {}, where)}
    return {"task_id": str(task.get("task_id") or content_id(content)), **content}


def _sections(asked: Asked, reward: str | None) -> RunFile:
    base = read_run_file(asked.run_file) if asked.run_file else {}
    trainer: dict[str, Any] = {
        "max_staleness": asked.max_staleness,
        "seed": asked.seed,
        "groups_per_step": asked.groups,
        "drop_zero_variance": True,  # held-out and flat groups do not count; more tasks are sampled instead
    }
    if asked.learning_rate is not None:
        trainer["learning_rate"] = asked.learning_rate
    return made_run_file(base, policy="policy", reward=reward, trainer=trainer)


def _check_rewarded(asked: Asked, sections: RunFile) -> None:
    """Without a reward function the agent has to give the reward; nothing to check, but the run file may forbid it."""
    reward = sections.get("reward", {})
    if (
        "emitted" in reward
        and reward["emitted"] is None
        and not any(reward.get(k) for k in ("functions", "judges", "air"))
    ):
        raise StackError(f"{asked.run_file} has no rule for rewards, and no --reward was given.")


def _stack(asked: Asked, rewards: Path | None) -> StackConfig:
    data_dir = asked.data_dir.resolve()
    beside = [asked.run_file.resolve().parent] if asked.run_file else []
    folders = [*([rewards] if rewards else []), *beside]
    return StackConfig(
        data_dir=data_dir,
        model=asked.model,
        engine=asked.engine,
        run_file=data_dir / "run" / "run.yaml",
        topic_prefix=ServiceSettings().topic_prefix,
        python_path=tuple(dict.fromkeys(folders)),
        ports=Ports.auto() if asked.auto_ports else Ports(),
    )
