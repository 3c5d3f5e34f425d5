"""Which tasks are held out, which is sampled when, and what their ids say."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.stack.errors import StackError
from leyden.training.task_set import TaskName, TaskSet, task_set


def tasks(count: int) -> list[dict[str, Any]]:
    return [{"task_id": f"t{n}", "input": n, "metadata": {}} for n in range(count)]


SETS = st.builds(task_set, st.integers(2, 30).map(tasks), st.floats(0, 0.5), st.integers(0, 3))


@given(st.integers(2, 30), st.floats(0, 0.9), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_same_tasks_are_held_out_in_whatever_order_they_come(
    count: int, share: float, seed: int, rng: random.Random
) -> None:
    shuffled = tasks(count)
    rng.shuffle(shuffled)
    if round(share * count) >= count:
        return
    first, second = task_set(tasks(count), share, seed), task_set(shuffled, share, seed)
    names = [{task["task_id"] for task in one.held_out} for one in (first, second)]
    assert names[0] == names[1]
    assert len(names[0]) == (max(1, round(share * count)) if share else 0)
    assert names[0].isdisjoint(task["task_id"] for task in first.train)
    assert len(first.train) + len(first.held_out) == count


def test_a_number_from_one_on_is_a_number_of_tasks() -> None:
    assert len(task_set(tasks(10), 3).held_out) == 3
    assert len(task_set(tasks(10), 1).held_out) == 1
    assert task_set(tasks(1), 0.2).held_out == ()


@pytest.mark.parametrize(("count", "holdout"), [(3, 3), (3, 0.9), (1, 1)])
def test_tasks_must_be_left_to_train_on(count: int, holdout: float) -> None:
    with pytest.raises(StackError, match="leave none to train on: add tasks or lower --holdout"):
        task_set(tasks(count), holdout)


def test_the_same_task_twice_is_one_and_two_tasks_with_one_id_are_refused() -> None:
    assert len(task_set([*tasks(3), *tasks(3)], 0).train) == 3
    with pytest.raises(StackError, match="Two tasks have the id t1"):
        task_set([*tasks(3), {"task_id": "t1", "input": "other"}], 0)


@given(SETS, st.integers(1, 9), st.integers(0, 60), st.integers(1, 20))
def test_the_order_does_not_depend_on_how_many_are_taken_at_once(
    set_: TaskSet, update: int, first: int, count: int
) -> None:
    at_once = set_.sampled(update, first, count)
    assert at_once == [task for n in range(count) for task in set_.sampled(update, first + n, 1)]
    assert [set_.parse(task["task_id"]) for task in at_once] == [
        TaskName(held_out=False, number=update, index=first + n) for n in range(count)
    ]


@given(SETS)
def test_each_pass_has_every_task_once_and_an_order_of_its_own(set_: TaskSet) -> None:
    size = len(set_.train)
    passes = [[task["input"] for task in set_.sampled(1, size * epoch, size)] for epoch in range(6)]
    assert all(sorted(one) == sorted(task["input"] for task in set_.train) for one in passes)
    assert size < 4 or len({tuple(one) for one in passes}) > 1


@given(SETS, st.integers(0, 99))
def test_held_out_tasks_are_validation_and_their_ids_name_the_version(set_: TaskSet, version: int) -> None:
    evaluation = set_.evaluation(version)
    assert {task["mode"] for task in evaluation} <= {"validation"}
    assert [set_.parse(task["task_id"]) for task in evaluation] == [
        TaskName(held_out=True, number=version, index=n) for n in range(len(evaluation))
    ]


@given(st.text(min_size=1, max_size=400), st.integers(0, 10**9), st.integers(0, 10**9))
def test_any_id_of_the_users_is_kept_apart_and_fits(own: str, update: int, index: int) -> None:
    one = TaskSet(train=({"task_id": own, "input": 1},), name="train", shuffled=False)
    [task] = one.sampled(update, index, 1)
    assert len(task["task_id"]) <= 256
    assert one.parse(task["task_id"]) == TaskName(held_out=False, number=update, index=index)
    assert TaskSet(train=one.train, name="other").parse(task["task_id"]) is None
