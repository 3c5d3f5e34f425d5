"""A training that is interrupted at any moments enqueues the same tasks in the same order as one that is not."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event, TaskEnqueued
from leyden.training.schedule import Evaluate, Finish, Sample, Schedule, decide
from leyden.training.state import TrainState
from leyden.training.task_set import Task, TaskSet, task_set
from training_support import credited, enqueued, lived, step

SLOW_S = 1_000.0


class World:
    """Everything but the training itself: a log, a gateway that tells the live version, and all services."""

    def __init__(self, schedule: Schedule, tasks: TaskSet, rng: random.Random) -> None:
        self.schedule, self.tasks, self.rng = schedule, tasks, rng
        self.log: list[Event] = []
        self.order: list[str] = []
        """Ids of the tasks, as they were enqueued."""
        self.pending: list[TaskEnqueued] = []
        self.useful: list[TaskEnqueued] = []
        self.steps = self.live = 0
        self.quiet_s = 0.0

    def enqueue(self, tasks: list[Task]) -> None:
        self.quiet_s = 0.0
        for task in tasks:
            event = enqueued(task)
            self.log.append(event)
            self.order.append(event.task.task_id)
            self.pending.append(event)

    def advance(self) -> None:
        """One thing that happens by itself."""
        self.quiet_s = 0.0
        wanted = self.schedule.groups_per_step
        if self.pending:
            self._end(self.pending.pop(self.rng.randrange(len(self.pending))))
        elif len(self.useful) >= wanted:
            self.steps += 1
            batch, self.useful = self.useful[:wanted], self.useful[wanted:]
            self.log += step(self.steps, self.rng.random(), [one.group_id for one in batch])
        elif self.live != self.steps:
            self.live = self.steps
        else:
            self.quiet_s = SLOW_S

    def _end(self, event: TaskEnqueued) -> None:
        self.log += lived(event, [self.rng.choice([None, 0.0, 0.5, 1.0]) for _ in event.rollout_ids])
        if event.task.mode == "validation":
            self.log.append(credited(event, sequences=0))
            return
        flat = self.rng.random() < 0.3
        self.log.append(credited(event, zero_variance=flat))
        self.useful += [] if flat else [event]


def play(schedule: Schedule, tasks: TaskSet, seed: int, restarts: random.Random | None) -> tuple[list[str], TrainState]:
    """The ids of the tasks in the order in which they were enqueued, and the last state."""
    world = World(schedule, tasks, random.Random(seed))
    state, read = TrainState(schedule, tasks, policy="p"), 0
    for _ in range(3_000):
        if restarts is not None and restarts.random() < 0.2:
            state, read = TrainState(schedule, tasks, policy="p"), 0
        for event in world.log[read:]:
            state.see(event)
        read = len(world.log)
        state.see_version(world.live)
        action = decide(schedule, replace(state.standing, quiet_s=world.quiet_s))
        match action:
            case Finish():
                return world.order, state
            case Sample(update, count):
                world.enqueue(tasks.sampled(update, state.sampled, count))
            case Evaluate(version):
                world.enqueue(tasks.evaluation(version))
            case _:
                world.advance()
    raise AssertionError(f"no end: {action}, {state.standing}")


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        Schedule,
        updates=st.integers(1, 4),
        groups_per_step=st.integers(1, 3),
        evaluate_every=st.integers(1, 3),
    ),
    st.integers(0, 10_000),
)
def test_interruptions_change_nothing(schedule: Schedule, seed: int) -> None:
    tasks = task_set([{"task_id": f"t{n}", "input": n, "metadata": {}} for n in range(7)], holdout=2, seed=seed)
    whole, end = play(schedule, tasks, seed, None)
    broken, resumed = play(schedule, tasks, seed, random.Random(seed + 1))
    assert broken == whole
    assert (resumed.updates, resumed.held_out, resumed.best) == (end.updates, end.held_out, end.best)
    assert len(set(whole)) == len(whole), "no task is enqueued twice"
    assert len(end.updates) == schedule.updates
