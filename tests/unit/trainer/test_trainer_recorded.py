"""The chain of recorded batches: which one comes next, whatever else stands in the log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import BatchFormed, BatchGroup
from leyden.trainer.core.batching import BatchRules
from leyden.trainer.core.recorded import BatchChain

RULES = BatchRules(policy="policy", groups_per_step=2)


def batch(event_id: str, parent: str = "", groups: Sequence[str | BatchGroup] = "ab", **changes: Any) -> BatchFormed:
    whole = BatchFormed(
        event_id=event_id, event_time=datetime(2030, 1, 1, tzinfo=UTC), producer="test", policy="policy", parent=parent,
        step=1, version=0, sequence_ids=[], groups_per_step=2, seed=0, settings_hash="s",
        groups=[BatchGroup(group_id=group) if isinstance(group, str) else group for group in groups],
    )  # fmt: skip
    return whole.model_copy(update=changes)


def chain(*batches: BatchFormed, last: str = "") -> BatchChain:
    made = BatchChain(RULES, last)
    for one in batches:
        made.add(one)
    return made


def order(of: BatchChain) -> list[str]:
    """The batches in the order in which they are trained if all their groups are here."""
    found = []
    while (following := of.next) is not None:
        found.append(following.event_id)
        of.finish(following)
    return found


def test_batches_follow_each_other_from_the_last_one_trained() -> None:
    log = [batch("1"), batch("2", "1"), batch("3", "2")]
    assert order(chain(*log)) == ["1", "2", "3"]
    assert order(chain(*log, last="1")) == ["2", "3"]
    assert order(chain(*log, last="3")) == order(chain()) == []


def test_of_two_with_one_parent_the_first_in_the_log_counts_with_all_that_follows() -> None:
    log = [batch("1"), batch("2", "1"), batch("2'", "1"), batch("3'", "2'"), batch("3", "2")]
    assert order(chain(*log)) == ["1", "2", "3"]


def test_a_batch_that_was_given_up_leaves_its_place_to_the_next() -> None:
    made = chain(batch("1"), batch("1'"), batch("2'", "1'"))
    made.give_up(batch("1"))
    assert order(made) == ["1'", "2'"]


def test_a_batch_that_was_given_up_and_is_recorded_again_counts_again() -> None:
    made = chain(batch("1"))
    made.give_up(batch("1"))
    assert made.next is None
    made.add(batch("1"))
    assert order(made) == ["1"]


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "other"}, {"credit": "other"}, {"groups_per_step": 3}, {"drop_zero_variance": True},
        {"max_staleness": 1},
    ],
)  # fmt: skip
def test_batches_of_other_rules_are_not_followed(change: dict[str, Any]) -> None:
    assert chain(batch("1", **change)).next is None


@pytest.mark.parametrize("change", [{"seed": 7}, {"settings_hash": "other"}, {"producer": "second"}])
def test_batches_of_a_trainer_that_learns_in_another_way_are_followed(change: dict[str, Any]) -> None:
    assert order(chain(batch("1", **change))) == ["1"]


def test_a_batch_in_place_of_another_has_the_others_successors() -> None:
    log = [batch("1"), batch("2", "1"), batch("1'", replaces="1"), batch("1''", replaces="1'")]
    assert order(chain(*log)) == ["1", "2"]
    assert order(chain(*log, last="1'")) == order(chain(*log, last="1''")) == ["2"]
    assert order(chain(*log, batch("2''", "1''"), last="1''")) == ["2''"], "its own come first"
    assert order(chain(*log[:2], batch("1'", replaces="unknown"), last="1'")) == []


ids = st.sampled_from("1234")


@given(st.lists(st.tuples(ids, st.sampled_from(["", *"1234"]), st.sampled_from(["", *"1234"])), max_size=12), ids)
def test_no_record_makes_a_circle_or_comes_twice(log: list[tuple[str, str, str]], given_up: str) -> None:
    made = chain(*(batch(event_id, parent, replaces=replaces) for event_id, parent, replaces in log))
    made.give_up(batch(given_up))
    for event_id, parent, replaces in log:
        made.add(batch(event_id, parent, replaces=replaces))
    trained = order(made)
    assert len(trained) == len(set(trained))
