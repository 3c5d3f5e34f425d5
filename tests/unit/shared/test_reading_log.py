"""Reading the log: the partition of a key is the producer's, offsets become stretches, groups come whole and once."""

from itertools import pairwise
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

import command_support as s
from leyden.events import Event
from leyden.kafka.reading import partition_of
from leyden.reading.log import runs
from leyden.reading.sets import Filters, named_set, whole_groups
from leyden.stack.errors import StackError


@given(st.text(min_size=1, max_size=60), st.integers(1, 50))
def test_the_partition_of_a_key_is_the_one_that_the_producer_takes(key: str, partitions: int) -> None:
    chosen = DefaultPartitioner()(key.encode(), list(range(partitions)), list(range(partitions)))
    assert partition_of(key, partitions) == chosen


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(0, 50))
def test_stretches_hold_every_offset_and_no_wide_gap(offsets: set[int], max_gap: int) -> None:
    found = runs(offsets, max_gap)
    assert offsets <= {offset for first, last in found for offset in range(first, last)}
    assert {edge for first, last in found for edge in (first, last - 1)} <= offsets
    assert all(later[0] - earlier[1] > max_gap for earlier, later in pairwise(found))


async def groups(events: list[Event], of: str = "live", **filters: Any) -> list[tuple[int, list[float]]]:
    log: Any = s.FakeLog(events)
    found = [group async for group in whole_groups(log, named_set(of), Filters(**filters))]
    return [(g.end.revision, [t.advantage for q in g.sequences for t in q.transitions]) for g in found]


async def test_a_group_comes_once_at_its_newest_revision_though_it_was_published_twice() -> None:
    first, second = s.credited((1.0, -1.0)), s.credited((0.5, -0.5), revision=1)
    crashed = second[:1]
    assert await groups([*first, *first, *crashed, *second, *second]) == [(1, [0.5, 0.5, -0.5])]


async def test_a_group_that_is_not_whole_is_not_given() -> None:
    of_a, of_b, end = s.credited()
    assert await groups([of_a, of_b]) == []
    assert await groups([of_a, end]) == []
    assert await groups([of_b, of_a, end]) == [(0, [0.7, 0.7, -0.7])]


async def test_a_named_credit_service_has_transitions_of_its_own() -> None:
    events = [*s.credited(), *s.credited((2.0, -2.0), credit="dense")]
    assert await groups(events, "credit:dense") == [(0, [2.0, 2.0, -2.0])]
    assert await groups(events) == [(0, [0.7, 0.7, -0.7])]


async def test_policy_and_group_choose() -> None:
    assert await groups(s.credited(), policy="p", group_id=s.GROUP)
    assert await groups(s.credited(), policy="q") == []
    assert await groups(s.credited(), group_id="other") == []


@pytest.mark.parametrize("name", ["", "Live", "credit:", "a/b", "a.b"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(StackError):
        named_set(name)
    assert named_set("again").prefix == "again."
    assert named_set("live").prefix is None
