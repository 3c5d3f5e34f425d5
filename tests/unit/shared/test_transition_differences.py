"""`leyden replay diff`: what two sets of transitions share, how advantages moved, where they turned."""

import pytest

from command_support import GROUP, A, B, credited
from leyden.analysis.differences import Side, difference
from leyden.events import SequenceCredited


def side(advantages: tuple[float, float], groups: tuple[str, ...] = (GROUP,), **changes: object) -> Side:
    made = Side()
    for group in groups:
        events = credited(advantages, group_id=group, **changes)
        made.add("p", group, [event for event in events if isinstance(event, SequenceCredited)])
    return made


def test_a_set_is_the_same_as_itself_whatever_its_event_ids() -> None:
    found = difference(side((0.7, -0.7)), side((0.7, -0.7), credit="other", revision=2))
    assert (found.same, found.changed, found.only_a, found.only_b, found.groups) == (3, 0, 0, 0, 1)
    assert set(found.quantiles.values()) == {0.0}
    assert (found.flips, found.top) == ([], [])


def test_changes_turns_and_the_rollouts_that_moved_most_are_told() -> None:
    found = difference(side((0.7, -0.7)), side((-0.3, -0.5)))
    assert (found.same, found.changed) == (0, 3)
    (flips,) = found.flips
    assert (flips.group_id, flips.compared, flips.flipped, flips.zeroed) == (GROUP, 3, 2, 0)
    assert [(one.rollout_id, one.transitions) for one in found.top] == [(A, 2), (B, 1)]
    assert [one.largest_change for one in found.top] == pytest.approx([-1.0, 0.2])
    assert (found.quantiles[0.0], found.quantiles[1.0]) == pytest.approx((-1.0, 0.2))
    assert found.correlation == pytest.approx(1.0)
    assert difference(side((0.7, -0.7)), side((0.0, -0.7))).flips[0].zeroed == 2


def test_only_groups_that_both_have_are_compared() -> None:
    a, b = side((0.7, -0.7)), side((0.7, -0.7))
    a.add("p", "x", [])
    b.add("p", "y", [])
    b.add("p", "z", [])
    found = difference(a, b)
    assert (found.groups, found.groups_only_a, found.groups_only_b) == (1, 1, 2)
    assert (found.same, found.changed, found.only_a, found.only_b) == (3, 0, 0, 0)


def test_what_one_side_left_out_of_a_common_group_is_counted() -> None:
    whole, part = side((0.7, -0.7)), side((0.7, -0.7))
    part.credits = {key: credit for key, credit in part.credits.items() if key.rollout_id == A}
    assert (difference(whole, part).only_a, difference(part, whole).only_b) == (1, 1)


def test_sets_without_a_common_group_have_nothing_to_tell() -> None:
    found = difference(side((0.7, -0.7), ("x",)), side((0.7, -0.7), ("y",)))
    assert (found.groups, found.same, found.changed, found.quantiles, found.correlation) == (0, 0, 0, {}, None)
