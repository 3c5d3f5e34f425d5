"""The tasks of a training: which are held out, which one is sampled when, and their ids. Pure; the same seed gives the
same.

A task's id says what it was enqueued for, so that an interrupted training finds in the log what it has done:
`<name>/update-<n>/<k>/<task>` is the k-th sampled task, `<name>/held-out-<version>/<k>/<task>` an evaluation's, and
`<name>/held-out-<version>.<n>/<k>/<task>` the n-th repetition of that, after it failed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyden.ids import derive
from leyden.stack.errors import StackError
from leyden.training.tasks import short_id

UPDATE, HELD_OUT = "update", "held-out"
_ID = re.compile(
    rf"(?P<name>.*)/(?P<kind>{UPDATE}|{HELD_OUT})-(?P<number>\d+)(\.(?P<again>\d+))?/(?P<index>\d+)/.*", re.DOTALL
)
Task = dict[str, Any]
"""A task as the gateway takes it: task_id, input, metadata."""


@dataclass(frozen=True)
class TaskName:
    """What a task was enqueued for."""

    held_out: bool
    number: int
    """The update, or the evaluated version."""
    index: int
    again: int = 0
    """How many times it was enqueued before."""


@dataclass(frozen=True)
class TaskSet:
    """Training and held-out tasks."""

    train: tuple[Task, ...]
    held_out: tuple[Task, ...] = ()
    name: str = "train"
    seed: int = 0
    shuffled: bool = True

    def sampled(self, update: int, first: int, count: int) -> list[Task]:
        """Tasks `first`, `first + 1`, … of the training, for `update`. Each pass over the tasks has an order of its
        own.
        """
        tasks = []
        orders: dict[int, Sequence[Task]] = {}
        for index in range(first, first + count):
            epoch, place = divmod(index, len(self.train))
            task = orders.setdefault(epoch, orders.get(epoch) or self._order(epoch))[place]
            tasks.append(task | {"task_id": self._id(UPDATE, update, index, task), "mode": "train"})
        return tasks

    def evaluation(self, version: int, again: Mapping[int, int] | None = None) -> list[Task]:
        """The held-out tasks, for `version`. `again`: those indices alone, each with its number of repetitions."""
        numbers = dict.fromkeys(range(len(self.held_out)), 0) if again is None else again
        return [
            self.held_out[index]
            | {"task_id": self._id(HELD_OUT, _repeated(version, number), index, self.held_out[index])}
            | {"mode": "validation"}
            for index, number in numbers.items()
        ]

    def parse(self, task_id: str) -> TaskName | None:
        """What the task was enqueued for; None if it is not of this training."""
        found = _ID.fullmatch(task_id)
        if found is None or found["name"] != self.name:
            return None
        return TaskName(found["kind"] == HELD_OUT, int(found["number"]), int(found["index"]), int(found["again"] or 0))

    def _order(self, epoch: int) -> Sequence[Task]:
        if not self.shuffled:
            return self.train
        return sorted(self.train, key=lambda task: derive("order", self.seed, epoch, task["task_id"]))

    def _id(self, kind: str, number: int | str, index: int, task: Task) -> str:
        return short_id(f"{self.name}/{kind}-{number}/{index}/{task['task_id']}")


def _repeated(version: int, number: int) -> str:
    return f"{version}.{number}" if number else str(version)


def task_set(tasks: Sequence[Task], holdout: float, seed: int = 0, name: str = "train") -> TaskSet:
    """Hold out a share of the tasks (below 1) or a number of them (from 1): the same ones for the same seed.

    Equal tasks count once. Raises StackError if different ones have the same id, or none is left to train on.
    """
    by_id: dict[str, Task] = {}
    for task in tasks:
        if by_id.setdefault(task["task_id"], task) != task:
            raise StackError(f"Two tasks have the id {task['task_id']}; give each its own.")
    tasks = list(by_id.values())
    count = round(holdout * len(tasks)) if holdout < 1 else round(holdout)
    if 0 < holdout < 1 and len(tasks) > 1:
        count = max(1, count)
    if count >= len(tasks):
        raise StackError(
            f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} and {count} held out leave none to train on: "
            "add tasks or lower --holdout."
        )
    held_out = set(sorted(by_id, key=lambda id_: derive("held-out", seed, id_))[:count])
    return TaskSet(
        train=tuple(task for task in tasks if task["task_id"] not in held_out),
        held_out=tuple(task for task in tasks if task["task_id"] in held_out),
        name=name,
        seed=seed,
    )
