"""Where a training stands, computed from its log: by id, so that redelivery and restarts change nothing."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import command_support as s
from leyden.events import Event, Failure, FailureClass, RolloutEnded, TaskEnqueued
from leyden.reading.model_wait import model_wait
from leyden.training.problems import causes, problems
from leyden.training.results import Best, HeldOut
from leyden.training.schedule import Schedule
from leyden.training.state import TrainState
from leyden.training.task_set import TaskSet, task_set
from training_support import credited, enqueued, lived, step

TASKS = task_set([{"task_id": f"t{n}", "input": n, "metadata": {}} for n in range(10)], holdout=2)
SCHEDULE = Schedule(updates=3, groups_per_step=2, evaluate_every=1)


def new_state(tasks: TaskSet = TASKS, schedule: Schedule = SCHEDULE) -> TrainState:
    return TrainState(schedule, tasks, policy="p")


def update_of(number: int, first: int) -> list[TaskEnqueued]:
    return [enqueued(task) for task in TASKS.sampled(number, first, 2)]


def a_training() -> list[Event]:
    """An evaluation of version 0, an update, and half of the rollouts of the second."""
    events: list[Event] = []
    rewards: list[list[float | None]] = [[0.0, 0.5], [None, 1.0]]
    for task, values in zip(TASKS.evaluation(0), rewards, strict=True):
        events += lived(enqueued(task), values)
    first, second = update_of(1, 0), update_of(2, 2)
    for one in first:
        events += [*lived(one, [0.0, 1.0]), credited(one)]
    events += step(1, 0.5, [one.group_id for one in first])
    return [*events, *lived(second[0], [0.0, 1.0]), credited(second[0]), second[1]]


def seen(events: Sequence[Event], state: TrainState | None = None) -> TrainState:
    state = state or new_state()
    for event in events:
        state.see(event)
    return state


def test_a_training_stands_where_its_log_says() -> None:
    state = seen(a_training())
    state.see_version(1)
    standing = state.standing
    assert (standing.steps, standing.trained_version, standing.live_version) == (1, 1, 1)
    assert standing.sampled == {1: 2, 2: 2}
    assert (standing.open_groups, standing.usable_groups, standing.is_training) == (1, 1, False)
    assert standing.evaluated == standing.evaluating == {0}
    assert state.held_out == [HeldOut(version=0, mean=0.5, rollouts=4, judged=3)]
    assert state.best == Best(0, 0.5, None)
    assert state.sampled == 4
    assert state.rollouts == (10, 12)


def shown(state: TrainState) -> tuple[Any, ...]:
    return replace(state.standing, quiet_s=0.0), state.held_out, state.updates, state.best, problems(state)


@given(st.randoms(use_true_random=False))
def test_any_order_and_every_event_twice_give_the_same(rng: random.Random) -> None:
    events = a_training() * 2
    rng.shuffle(events)
    assert shown(seen(events)) == shown(seen(a_training()))


def test_a_group_without_anything_to_learn_or_in_a_batch_is_not_usable() -> None:
    one, other = update_of(1, 0)
    flat = seen([one, other, credited(one, zero_variance=True), credited(other, sequences=0)])
    assert (flat.standing.usable_groups, flat.standing.open_groups) == (0, 0)
    formed = seen([one, other, credited(one), credited(other), step(1, 0.5, [one.group_id])[0]])
    assert (formed.standing.usable_groups, formed.standing.is_training) == (1, True)


def test_samples_of_an_earlier_version_are_not_usable_unless_asked_for() -> None:
    [one, _] = update_of(1, 0)
    events = [one, credited(one), *step(1, 0.5)]
    assert seen(events).standing.usable_groups == 0
    ahead = Schedule(updates=3, groups_per_step=2, max_staleness=1)
    assert seen(events, new_state(schedule=ahead)).standing.usable_groups == 1


def test_an_evaluation_is_complete_when_all_of_its_rollouts_are_judged() -> None:
    events = [event for task in TASKS.evaluation(0) for event in lived(enqueued(task), [1.0, None])]
    for left_out in range(len(events)):
        assert not seen(events[:left_out] + events[left_out + 1 :]).standing.evaluated, events[left_out]
    assert seen(events).standing.evaluated == {0}


def test_a_rollout_that_is_retried_counts_at_its_last_attempt() -> None:
    task = enqueued(TASKS.evaluation(0)[0], samples=1)
    [rollout] = task.rollout_ids
    first = [s.ended(rollout, [], task=task.task, final=False, status="failed"), s.completed(rollout, [])]
    assert not seen([task, *first]).standing.evaluated
    tasks = task_set([{"task_id": "a"}, {"task_id": "b"}], holdout=1)
    [held_out] = tasks.evaluation(0)
    task = enqueued(held_out, samples=1)
    [rollout] = task.rollout_ids
    given_ = s.outcome(rollout, 0.75).model_copy(update={"attempt": 1})
    last = [s.ended(rollout, [], attempt=1), given_, s.completed(rollout, [given_], attempt=1)]
    state = seen([task, *first, *last], new_state(tasks))
    assert [one.mean for one in state.held_out] == [0.75]


def test_the_best_version_is_the_first_of_the_best_and_without_held_out_tasks_that_of_the_training_rollouts() -> None:
    tasks = task_set([{"task_id": "a"}], holdout=0)
    events = [*step(1, 0.2), *step(2, 0.9), *step(3, 0.9), *step(4, 0.5, version=3)]
    state = seen(events, new_state(tasks))
    assert state.scores == {0: 0.2, 1: 0.9, 2: 0.9, 3: 0.5}
    assert state.best == Best(1, 0.9, None)


def test_problems_are_told_once_each_with_their_numbers() -> None:
    one, other = update_of(1, 0)
    reasons = dict.fromkeys(one.rollout_ids, "no policy call")
    events = [
        *lived(one, [None, None]), credited(one, sequences=0, left_out=reasons),
        *lived(other, [1.0, 1.0], failed_rule="outcome: exception: KeyError: 'answer'"),
    ]  # fmt: skip
    texts = list(problems(seen(events)).values())
    assert texts[0].startswith("2 rollouts failed, agent_exception: KeyError: 'x'")
    assert texts[1].startswith("reward rule outcome failed on 2 rollouts: exception: KeyError: 'answer'")
    assert texts[2].startswith("2 rollouts left out of training: no policy call (they made no model call")
    assert list(problems(seen(events)).keys()) == list(problems(seen(events[:-2])).keys()), "a key stays the same"


@pytest.mark.parametrize(("final", "text"), [(False, "1 attempt of held-out rollouts failed and is made again"),
                                              (True, "1 held-out rollout failed")])  # fmt: skip
def test_a_held_out_attempt_that_fails_is_told_at_once(final: bool, text: str) -> None:
    task = enqueued(TASKS.evaluation(0)[0], samples=1)
    failure = Failure(failure_class=FailureClass.TIMEOUT, message="the agent did not end in 60 s")
    end = s.ended(task.rollout_ids[0], [], task=task.task, status="failed", failure=failure, final=final)
    [told] = problems(seen([task, end])).values()
    assert told.startswith(f"{text}, timeout: the agent did not end in 60 s")


@pytest.mark.parametrize("final", [False, True])
def test_an_attempt_that_its_user_stopped_is_no_problem_unless_it_was_the_last(final: bool) -> None:
    task = enqueued(TASKS.sampled(1, 0, 1)[0], samples=1)
    failure = Failure(failure_class=FailureClass.INTERRUPTED, message="stopped by SIGINT")
    end = s.ended(task.rollout_ids[0], [], task=task.task, status="failed", failure=failure, final=final)
    assert len(problems(seen([task, end]))) == int(final)


def test_the_cause_of_a_training_without_anything_to_learn_is_what_took_rollouts_from_it_for_good() -> None:
    one = update_of(1, 0)[0]
    held_out = enqueued(TASKS.evaluation(0)[0], samples=1)
    reasons = dict.fromkeys(one.rollout_ids, "no reward")
    failure = Failure(failure_class=FailureClass.TIMEOUT, message="the agent did not end in 60 s")

    def failed(task: TaskEnqueued, final: bool) -> Event:
        rollout = task.rollout_ids[0]
        return s.ended(rollout, [], task=task.task, status="failed", failure=failure, final=final)

    state = seen([one, held_out, failed(one, False), failed(held_out, True), credited(one, left_out=reasons)])
    state.model = model_wait([{"trace_id": "a", "model": "p", "seconds": 30.0}])
    assert len(problems(state)) == 4
    [cause] = causes(state)
    assert cause.startswith("2 rollouts left out of training: no reward")
    state.see(failed(one, True))
    assert causes(state)[0].startswith("1 rollout failed, timeout: the agent did not end in 60 s")


def test_a_slow_model_is_told_while_it_is_slow() -> None:
    state = new_state()
    state.model = model_wait([{"trace_id": "a", "model": "p", "seconds": 30.0}])
    waits = "1 model call waits for an answer, the oldest for 30 s (model `p`)"
    assert problems(state) == {"slow model": f"the model is slow: {waits}"}
    state.model = model_wait([{"trace_id": "a", "model": "p", "seconds": 3.0}])
    assert problems(state) == {}


def test_tasks_of_others_are_ignored() -> None:
    other = enqueued({"task_id": "gsm8k:17", "input": 1, "metadata": {}})
    mine = enqueued({"task_id": "mine/update-1/0/t1", "input": 1, "metadata": {}})
    assert seen([other, mine]).standing.sampled == {}


@pytest.mark.parametrize("kind", ["final", "attempt"])
def test_only_final_ends_count_as_ended(kind: str) -> None:
    task = enqueued(TASKS.sampled(1, 0, 1)[0])
    end: RolloutEnded = s.ended(task.rollout_ids[0], [], final=kind == "final", group_id=task.group_id)
    assert seen([task, end]).rollouts == (int(kind == "final"), 2)
