"""The order of equal replicas: by load, and by prefix with a bound."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.routing import BOUND, affinity_key, by_affinity, least_loaded

PLACES = [f"policy/r{n}" for n in range(5)]
loads = st.dictionaries(st.sampled_from(PLACES), st.integers(0, 50))


def test_the_least_loaded_comes_first_and_ties_go_by_name() -> None:
    assert least_loaded(["c", "b", "a"], {"a": 2}) == ["b", "c", "a"]


@given(st.text(max_size=20))
def test_a_key_has_the_same_order_every_time_and_a_replica_that_goes_moves_no_other(key: str) -> None:
    order = by_affinity(PLACES, {}, key)
    assert sorted(order) == PLACES
    assert by_affinity(PLACES[::-1], {}, key) == order
    for gone in PLACES:
        rest = [place for place in PLACES if place != gone]
        assert by_affinity(rest, {}, key) == [place for place in order if place != gone]


def test_keys_spread_over_the_replicas() -> None:
    firsts = Counter(by_affinity(PLACES, {}, f"rollout {n}")[0] for n in range(1000))
    assert set(firsts) == set(PLACES)
    assert max(firsts.values()) < 300


@given(loads, st.text(max_size=10))
def test_the_first_choice_never_exceeds_the_bound_and_someone_is_always_first(load: dict[str, int], key: str) -> None:
    order = by_affinity(PLACES, load, key)
    assert sorted(order) == PLACES
    assert load.get(order[0], 0) + 1 <= math.ceil(BOUND * (sum(load.values()) + 1) / len(PLACES))


def test_one_long_prefix_spills_over_as_it_grows() -> None:
    load: Counter[str] = Counter()
    for _ in range(100):
        load[by_affinity(PLACES, load, "the same prefix")[0]] += 1
    assert max(load.values()) <= math.ceil(BOUND * 100 / len(PLACES))
    assert len(load) >= 4


def test_a_rollout_is_its_own_key_and_without_one_the_beginning_of_the_conversation_is() -> None:
    task = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    later = {"messages": [*task, {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]}
    assert affinity_key("1e7de", {"messages": task}) == "1e7de"
    assert affinity_key(None, {"messages": task}) == affinity_key(None, later)
    assert affinity_key(None, {"messages": task}) != affinity_key(None, {"messages": task[1:]})
    assert affinity_key(None, {"prompt": "p"}) != affinity_key(None, {"prompt": "q"})
