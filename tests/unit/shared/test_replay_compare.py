"""Comparing transitions: identical means every event on both sides with the same bytes, and at least one."""

from leyden.replay.compare import TransitionSet, compare


def of(**hashes: str) -> TransitionSet:
    return TransitionSet(hashes, frozenset({"g"}), len(hashes))


def test_the_same_bytes_are_identical_whatever_their_order() -> None:
    found = compare(of(a="1", b="2"), of(b="2", a="1"))
    assert found.identical
    assert found.recorded_digest == found.replayed_digest


def test_one_other_byte_one_missing_or_one_more_event_is_not_identical() -> None:
    recorded = of(a="1", b="2")
    assert [vars(compare(recorded, other))["different"] for other in (of(a="1", b="3"), recorded)] == [1, 0]
    for other in (of(a="1", b="3"), of(a="1"), of(a="1", b="2", c="3")):
        assert not compare(recorded, other).identical
        assert compare(recorded, other).recorded_digest != compare(recorded, other).replayed_digest


def test_nothing_on_both_sides_proves_nothing() -> None:
    assert not compare(of(), of()).identical
