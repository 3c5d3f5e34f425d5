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

    def __init__(self, schedule: Schedule, tasks: TaskSet, seed: int) -> None:
        self.schedule, self.tasks, self.seed = schedule, tasks, seed
        self.rng = random.Random(seed)
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
            reward = random.Random(f"{self.seed} {self.steps}").random()
            self.log += step(self.steps, reward, [one.group_id for one in batch])
        elif self.live != self.steps:
            self.live = self.steps
        else:
            self.quiet_s = SLOW_S

    def _end(self, event: TaskEnqueued) -> None:
        rng = random.Random(f"{self.seed} {event.task.task_id}")  # the same, whenever it ends
        self.log += lived(event, [rng.choice([None, 0.0, 0.5, 1.0]) for _ in event.rollout_ids])
        if event.task.mode == "validation":
            self.log.append(credited(event, sequences=0))
            return
        flat = rng.random() < 0.3
        self.log.append(credited(event, zero_variance=flat))
        self.useful += [] if flat else [event]


def play(
    schedule: Schedule, tasks: TaskSet, seed: int, restarts: random.Random | None, repeats: bool = False
) -> tuple[list[str], TrainState]:
    """The ids of the tasks in the order in which they were enqueued, and the last state.

    `repeats`: a restart has failed evaluations made again, as `leyden train` does.
    """
    world = World(schedule, tasks, seed)
    state, read = TrainState(schedule, tasks, policy="p"), 0
    for _ in range(3_000):
        if restarts is not None and restarts.random() < 0.2:
            state, read = TrainState(schedule, tasks, policy="p"), 0
        is_new = read == 0
        for event in world.log[read:]:
            state.see(event)
        read = len(world.log)
        if is_new and repeats:
            state.repeat_failed_evaluation()
        state.see_version(world.live)
        action = decide(schedule, replace(state.standing, quiet_s=world.quiet_s))
        match action:
            case Finish():
                return world.order, state
            case Sample(update, count):
                world.enqueue(tasks.sampled(update, state.sampled, count))
            case Evaluate(version):
                world.enqueue(tasks.evaluation(version, state.to_evaluate(version)))
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


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 10_000))
def test_a_training_that_goes_on_makes_failed_evaluations_again_and_changes_nothing_else(
    updates: int, every: int, seed: int
) -> None:
    schedule = Schedule(updates=updates, groups_per_step=2, evaluate_every=every)
    tasks = task_set([{"task_id": f"t{n}", "input": n, "metadata": {}} for n in range(7)], holdout=2, seed=seed)
    whole, end = play(schedule, tasks, seed, None)
    broken, resumed = play(schedule, tasks, seed, random.Random(seed + 1), repeats=True)
    names = [tasks.parse(task_id) for task_id in broken]
    assert [task_id for task_id, name in zip(broken, names, strict=True) if name and not name.again] == whole
    assert len(set(broken)) == len(broken), "no task is enqueued twice"
    assert resumed.updates == end.updates
    failed = {one.rollout_id for one in resumed.final_ends if one.status == "failed"}
    for name in names:
        if name is not None and name.again:
            assert name.held_out
            [before] = tasks.evaluation(name.number, {name.index: name.again - 1})
            assert failed & set(enqueued(before).rollout_ids), "only what failed is made again"
    assert [one.rollouts for one in resumed.held_out] == [one.rollouts for one in end.held_out]


def test_an_evaluation_that_failed_is_made_again_when_the_training_goes_on_and_then_counts() -> None:
    tasks = task_set([{"task_id": f"t{n}", "input": n, "metadata": {}} for n in range(4)], holdout=2)
    schedule = Schedule(updates=1, groups_per_step=1, evaluate_every=1)
    good, bad = (enqueued(task) for task in tasks.evaluation(0))
    log = [*lived(good, [1.0, 1.0]), *lived(bad, [None, None])]

    def resumed(events: list[Event]) -> TrainState:
        state = TrainState(schedule, tasks, policy="p")
        for event in events:
            state.see(event)
        state.see_version(0)
        state.repeat_failed_evaluation()
        return state

    state = resumed(log)
    assert decide(schedule, state.standing) == Evaluate(0)
    [task] = tasks.evaluation(0, state.to_evaluate(0))
    assert task["task_id"] != bad.task.task_id and task["input"] == bad.task.input
    log += lived(enqueued(task), [0.0, 0.0])
    [held_out] = resumed(log).held_out
    assert (held_out.mean, held_out.rollouts, held_out.judged) == (0.5, 4, 4)
