"""What a training does next, followed against a simulated trainer that may find nothing to learn in some groups."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.training.schedule import (
    IDLE_S,
    SLOW_S,
    Action,
    Evaluate,
    Finish,
    Sample,
    Schedule,
    Standing,
    Wait,
    decide,
)

PLAN = Schedule(updates=3, groups_per_step=4, evaluate_every=2)


def at(**changes: object) -> Standing:
    return replace(Standing(live_version=0, evaluated=frozenset({0})), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standing", "action"),
    [
        (Standing(), Wait("version 0 to go live")),
        (at(evaluated=frozenset()), Evaluate(0)),
        (at(evaluated=frozenset(), evaluating=frozenset({0})), Wait("held-out rollouts")),
        (at(), Sample(1, 4)),
        (at(sampled={1: 4}, open_groups=2), Wait("rollouts and their rewards")),
        (at(sampled={1: 4}, is_training=True), Wait("the trainer's step")),
        (at(sampled={1: 4}, usable_groups=4, quiet_s=IDLE_S), Wait("the trainer's batch")),
        (at(sampled={1: 4}, usable_groups=4, quiet_s=SLOW_S), Sample(1, 1)),
        (at(sampled={1: 4}, usable_groups=1, quiet_s=IDLE_S - 1), Wait("the trainer's batch")),
        (at(sampled={1: 4}, usable_groups=1, quiet_s=IDLE_S), Sample(1, 3)),
        (at(steps=1, trained_version=1, live_version=0, sampled={1: 4}), Wait("version 1 to go live")),
        (at(steps=1, trained_version=1, live_version=1, sampled={1: 4}), Sample(2, 4)),
        (at(steps=2, trained_version=2, live_version=2, sampled={1: 4, 2: 4}), Evaluate(2)),
        (at(steps=3, trained_version=3, live_version=3), Evaluate(3)),
        (at(steps=3, trained_version=3, live_version=3, evaluated=frozenset({0, 3})), Finish()),
        (at(steps=3, trained_version=2, live_version=2, evaluated=frozenset({0, 2})), Finish()),
        (at(steps=5, trained_version=5, live_version=5, evaluated=frozenset({5})), Finish()),
    ],
)
def test_each_standing_has_its_action(standing: Standing, action: Action) -> None:
    assert decide(PLAN, standing) == action


def test_without_held_out_tasks_nothing_is_evaluated() -> None:
    plan = replace(PLAN, evaluate_every=None)
    assert decide(plan, at(evaluated=frozenset())) == Sample(1, 4)
    assert decide(plan, at(steps=3, trained_version=3, live_version=3, evaluated=frozenset())) == Finish()


def test_older_samples_are_taken_only_when_asked_for_and_never_across_an_evaluation() -> None:
    ahead = replace(PLAN, max_staleness=1, updates=5)
    training = at(sampled={1: 4}, is_training=True)
    assert decide(PLAN, training) == Wait("the trainer's step")
    assert decide(ahead, training) == Sample(2, 4)
    assert decide(
        ahead, at(steps=1, trained_version=1, live_version=0, sampled={1: 4, 2: 4}, is_training=True)
    ) == Wait("the trainer's step")


@dataclass
class World:
    """A stack as far as the schedule sees it. Groups are credited, batches formed and versions served one by one."""

    schedule: Schedule
    counts_flat: bool
    """Whether the trainer's batches have groups with nothing to learn."""
    rng: random.Random
    steps: int = 0
    version: int = 0
    live: int = 0
    quiet_s: float = 0.0
    open: list[tuple[int, int]] = field(default_factory=list)
    """(update, version of its samples)."""
    waiting: list[tuple[int, int, bool]] = field(default_factory=list)
    batch: list[tuple[int, int, bool]] = field(default_factory=list)
    sampled: Counter[int] = field(default_factory=Counter)
    evaluating: set[int] = field(default_factory=set)
    evaluated: dict[int, int] = field(default_factory=dict)
    trained_staleness: list[int] = field(default_factory=list)

    def standing(self) -> Standing:
        fresh = self.steps - self.schedule.max_staleness
        return Standing(
            steps=self.steps,
            trained_version=self.version,
            live_version=self.live,
            sampled=dict(self.sampled),
            open_groups=len(self.open),
            usable_groups=sum(useful and update > fresh for update, _, useful in self.waiting),
            is_training=bool(self.batch),
            evaluating=frozenset(self.evaluating),
            evaluated=frozenset(self.evaluated),
            quiet_s=self.quiet_s,
        )

    def do(self, action: Action) -> None:
        self.quiet_s = 0.0
        match action:
            case Sample(update, tasks):
                assert self.schedule.max_staleness or self.live == self.version
                self.sampled[update] += tasks
                self.open += [(update, self.live)] * tasks
            case Evaluate(version):
                assert version == self.live
                self.evaluating.add(version)
            case _:
                self.happens()

    def happens(self) -> None:
        """One thing that is under way, or time."""
        ways = [way for way in (self.credit, self.step, self.serve, self.judge) if way(dry=True)]
        if ways:
            self.rng.choice(ways)(dry=False)
            self.form()
        else:
            self.quiet_s = SLOW_S

    def credit(self, dry: bool) -> bool:
        if not dry:
            update, version = self.open.pop(self.rng.randrange(len(self.open)))
            self.waiting.append((update, version, self.rng.random() < 0.6))
        return bool(self.open)

    def form(self) -> None:
        stale = self.schedule.max_staleness
        self.waiting = [one for one in self.waiting if self.version - one[1] <= stale]
        fit = [one for one in self.waiting if one[2] or self.counts_flat]
        if not self.batch and len(fit) >= self.schedule.groups_per_step:
            self.batch = fit[: self.schedule.groups_per_step]
            for one in self.batch:
                self.waiting.remove(one)

    def step(self, dry: bool) -> bool:
        if not dry:
            self.trained_staleness += [self.version - version for _, version, _ in self.batch]
            self.steps += 1
            self.version += any(useful for *_, useful in self.batch)
            self.batch = []
        return bool(self.batch)

    def serve(self, dry: bool) -> bool:
        if not dry:
            self.live = self.version
        return self.live != self.version

    def judge(self, dry: bool) -> bool:
        todo = self.evaluating - self.evaluated.keys()
        if not dry:
            for version in todo:
                self.evaluated[version] = self.live
        return bool(todo)


@given(
    st.builds(
        Schedule,
        updates=st.integers(1, 7),
        groups_per_step=st.integers(1, 5),
        evaluate_every=st.none() | st.integers(1, 4),
        max_staleness=st.integers(0, 2),
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_every_training_ends_on_fresh_samples_and_with_its_evaluations(
    schedule: Schedule, counts_flat: bool, rng: random.Random
) -> None:
    world = World(schedule, counts_flat, rng)
    for _ in range(5_000):
        action = decide(schedule, world.standing())
        if action == Finish():
            break
        world.do(action)
    assert action == Finish()
    assert world.steps >= schedule.updates
    assert max(world.trained_staleness) <= schedule.max_staleness
    if schedule.max_staleness == 0:
        assert world.steps == schedule.updates
    if schedule.evaluate_every is None:
        assert not world.evaluated
    else:
        assert all(version == answered for version, answered in world.evaluated.items()), "one version's answers"
        assert {0, world.version} <= world.evaluated.keys()
