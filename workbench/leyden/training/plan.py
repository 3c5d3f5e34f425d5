"""Everything that a training is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leyden.client.claims import Claim
from leyden.client.executors import Command, Mode
from leyden.client.named import Named
from leyden.stack.config import StackConfig
from leyden.training.schedule import Schedule
from leyden.training.task_set import TaskSet

Agent = Named | Command | Callable[[Claim], Any]
"""A function by its name, or a program: they run in a process of their own. A function itself runs in this process."""


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One training, on one machine."""

    agent: Agent
    tasks: TaskSet
    schedule: Schedule
    samples: int
    """Rollouts of each training task; they are compared with each other."""
    held_out_samples: int = 1
    """Rollouts of each held-out task in an evaluation."""
    stack: StackConfig
    concurrency: int = 64
    """Rollouts at a time."""
    mode: Mode = "auto"
    """How a Python agent runs; see `Runner`."""
    timeout_s: float = 600.0
    """Time limit of one attempt."""
    max_attempts: int = 3
    ends_early: bool = True
    """Whether it ends when several updates in a row had nothing to learn."""

    @property
    def task_fields(self) -> dict[str, Any]:
        """Fields of every task, as the gateway names them."""
        return {"timeout_s": self.timeout_s, "max_attempts": self.max_attempts}
