"""Comparing transitions: identical means every event on both sides with the same bytes, and at least one."""

from datetime import UTC, datetime
from itertools import permutations

from leyden.events import GroupCredited, SequenceCredited
from leyden.reading.revisions import NewestRevisions
from leyden.replay.compare import TransitionSet, compare, transition_set
from leyden.replay.run import following_the_record, stages_of


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


def credited(revision: int, group_id: str = "g", credit: str = "") -> GroupCredited:
    return GroupCredited(
        event_id=f"{group_id}-{revision}-{credit}",
        event_time=datetime(2026, 1, 1, tzinfo=UTC),
        producer="credit",
        policy="p",
        credit=credit,
        revision=revision,
        group_id=group_id,
        sequences=0,
        members=0,
    )


def sequence(event_id: str, revision: int = 0, group_id: str = "g") -> SequenceCredited:
    return SequenceCredited(
        event_id=event_id,
        event_time=datetime(2026, 1, 1, tzinfo=UTC),
        producer="credit",
        rollout_id="r",
        attempt=0,
        policy="p",
        revision=revision,
        group_id=group_id,
        sequence_index=0,
        group_sequences=1,
        token_ids=b"",
        behaviour_logprobs=b"",
        transitions=[],
        rollout_reward=0.0,
    )


def test_of_a_group_the_newest_revision_counts_whatever_the_order() -> None:
    for order in permutations([credited(0), credited(2), credited(1), credited(2), credited(0, "h")]):
        newest = NewestRevisions[str]()
        for event in order:
            newest.add(event, event.event_id)
        found = transition_set(newest)
        assert (found.hashes.keys(), found.groups) == ({"g-2-", "h-0-"}, {"g", "h"})


def test_a_revision_counts_only_once_its_group_is_published() -> None:
    newest = NewestRevisions[str]()
    for event in (credited(0), sequence("s-0", revision=0), sequence("s-1", revision=1), sequence("s-2", group_id="h")):
        newest.add(event, event.event_id)
    found = transition_set(newest)
    assert (set(found.hashes), found.groups, found.sequences) == ({"g-0-", "s-0"}, {"g"}, 1)


def test_a_replay_follows_the_recorded_settlements_and_groups_and_keeps_every_other_choice() -> None:
    live = {"credit": {"advantage": "rloo", "group": {"deadline_s": 60}}, "trainer": {"learning_rate": 0.1}}
    made = following_the_record(live)
    assert made == {
        "reward": {"settle": "recorded"},
        "credit": {"advantage": "rloo", "group": {"deadline_s": 60, "close": "recorded"}},
        "trainer": {"learning_rate": 0.1},
    }
    assert following_the_record({})["credit"] == {"group": {"close": "recorded"}}
    assert "close" not in live["credit"]["group"], "the live choices stay as they are"  # type: ignore[operator]


def test_a_replay_waits_for_the_recorded_groups_and_for_spans_only_where_they_are_read() -> None:
    assert "groups.v1" in dict(stages_of({}))["credit"]
    assert "spans.v1" not in dict(stages_of({}))["credit"]
    assert "spans.v1" in dict(stages_of({"credit": {"agents": [{"name": "critic"}]}}))["credit"]
