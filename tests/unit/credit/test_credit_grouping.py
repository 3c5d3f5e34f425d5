"""The decisions about groups: when one closes, with whom, and which of a rollout's rewards count."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_support import T0, delivered, finished, late_rewards, one_rollout, reward, rollout
from leyden.credit.core.assemble import Attempt, State, assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.groups import (
    RECORD,
    GroupSummary,
    MemberSummary,
    assign_group,
    closing_record,
    published_id,
    revision_of,
    select_rewards,
)
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection, GroupSection
from leyden.events import Event, GroupClosing

summaries = st.builds(
    MemberSummary,
    rollout_id=st.integers(0, 5).map(rollout),
    revision=st.integers(0, 3),
    group_size=st.just(4),
    usable=st.booleans(),
    ended_at=st.integers(0, 10**9).map(lambda micros: T0 + timedelta(microseconds=micros)),
)


def summary(index: int, usable: bool = True, revision: int = 0, size: int = 4) -> MemberSummary:
    return MemberSummary(
        rollout_id=rollout(index),
        revision=revision,
        group_size=size,
        usable=usable,
        ended_at=T0 + timedelta(seconds=index),
    )


def group_of(*some: MemberSummary) -> GroupSummary:
    return GroupSummary.of("g", [one.item_id for one in some])


def attempt(events: list[Event]) -> Attempt:
    return assemble(Evidence(one.event, one.origin) for one in delivered(events))  # type: ignore[arg-type]


@given(summaries)
def test_a_member_summary_is_read_back_from_the_id_of_its_item(one: MemberSummary) -> None:
    assert MemberSummary.parse(one.item_id) == one


@given(st.lists(summaries, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_the_items_changes_no_decision(some: list[MemberSummary], random: Random) -> None:
    shuffled = [*some, *some[:2]]
    random.shuffle(shuffled)
    for section in (CreditSection(), CreditSection(group=GroupSection(quota=2))):
        for overdue in (False, True):
            found = [closing_record(group_of(*order), section, overdue=overdue) for order in (shuffled, some)]
            assert found[0] == found[1]


def test_a_group_takes_no_more_members_than_its_size_and_those_that_ended_first() -> None:
    found = closing_record(group_of(*(summary(index, size=2) for index in (2, 1, 0))), CreditSection())
    assert found is not None
    assert found.rollout_ids == sorted([rollout(0), rollout(1)])
    assert found.event_time == T0 + timedelta(seconds=1)


def test_a_group_that_has_its_record_or_no_member_is_not_closed_again() -> None:
    assert (
        closing_record(GroupSummary.of("g", [summary(0, size=1).item_id, RECORD]), CreditSection(), overdue=True)
        is None
    )
    assert closing_record(GroupSummary.of("g", []), CreditSection(), overdue=True) is None


@pytest.mark.parametrize(
    ("usable", "reason"),
    [
        ([True, True, True, True], GroupClosing.QUOTA),
        ([True, True, False, False], GroupClosing.COMPLETE),
        ([True, False, False, False], GroupClosing.COMPLETE),
        ([True, True, False], GroupClosing.QUOTA),
        ([True, False, False], None),
    ],
)
def test_a_quota_counts_usable_members_and_a_group_that_is_whole_is_complete(
    usable: list[bool], reason: GroupClosing | None
) -> None:
    found = closing_record(
        group_of(*(summary(n, one) for n, one in enumerate(usable))), CreditSection(group=GroupSection(quota=2))
    )
    assert (found and found.reason) == reason


def test_the_revision_of_a_group_is_the_sum_of_its_members_newest() -> None:
    found = group_of(summary(0, revision=10), summary(0), summary(0, revision=9), summary(1, revision=1))
    assert revision_of(found.members.values()) == 11
    assert GroupSummary.of("g", [published_id(revision) for revision in (10, 9)]).published == 10


def test_a_revision_of_which_a_reward_is_missing_does_not_hide_the_one_before() -> None:
    first = one_rollout(0, 1.0, size=1)
    [given, completed] = late_rewards(first, 2.0, horizon_s=3600)
    assert select_rewards(attempt([*first, completed])).completed_rewards() == attempt(first).completed_rewards()
    assert len(select_rewards(attempt([*first, completed, given])).completed_rewards()) == 2


def test_a_revision_alone_completes_an_attempt_within_the_horizon_only() -> None:
    first = one_rollout(0, 1.0, size=1)
    for horizon_s, state in ((10, State.COMPLETE), (9, State.ENDED)):
        alone = [*first[:-1], *late_rewards(first, 2.0, after_s=10, horizon_s=horizon_s)]
        assert select_rewards(attempt(alone)).state is state


def test_a_late_reward_moves_no_rollout_to_another_group() -> None:
    rules = CreditSection(group=GroupSection(by="task", size=2, version_window=2))
    unjudged = one_rollout(0, None, size=1, version=7)
    groups = []
    for events in (unjudged, [*unjudged, *late_rewards(unjudged, 1.0, horizon_s=3600)]):
        found = select_rewards(attempt(events))
        member = assign_group(member_of(found, rules), found, rules)
        groups.append((member.group_id, member.group_size, member.revision, member.left_out))
    assert groups == [("task/t/p/3", 2, 0, "no reward"), ("task/t/p/3", 2, 1, None)]


def test_a_rollout_without_an_action_stays_in_its_own_group() -> None:
    rules = CreditSection(group=GroupSection(by="task", size=2, version_window=2))
    found = select_rewards(attempt(finished([], [reward(1.0)], group_id="alone")))
    member = assign_group(member_of(found, rules), found, rules)
    assert (member.group_id, member.group_size) == ("alone", 1)


@pytest.mark.parametrize(
    "wrong",
    [{"by": "task", "size": 4}, {"by": "task", "version_window": 1}, {"size": 4}, {"quota": 1}, {"deadline": 5}],
)
def test_a_group_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        CreditSection.model_validate({"group": wrong})
