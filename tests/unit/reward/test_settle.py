"""When an attempt's evidence is complete."""

import pytest

from leyden.events import pack_ints, unpack_ints
from leyden.reward.core.evidence import stored_item
from leyden.reward.core.settle import settle
from unit.reward.reward_builders import a_call, a_score, a_span, an_end, evidence_of

CALLS = [a_call(1, 1), a_call(2, 2)]


def test_all_calls_and_all_counted_spans_settle_an_attempt() -> None:
    ended = an_end(CALLS, span_count=2)
    settled = settle(ended, evidence_of([*CALLS, a_span(1, 3), a_span(2, 4)]))
    assert settled is not None
    assert settled.complete
    assert settled.call_ids == ["call-1", "call-2"]
    assert settled.span_ids == sorted([a_span(1, 3).event_id, a_span(2, 4).event_id])
    assert settled.event_time == ended.event_time


@pytest.mark.parametrize(
    "events", [CALLS[:1], CALLS, [*CALLS, a_span(1, 3)], [*CALLS, a_span(1, 3), a_score(2, 1.0, derived=True)]]
)
def test_an_attempt_waits_for_what_was_announced(events: list[object]) -> None:
    assert settle(an_end(CALLS, span_count=2), evidence_of(events)) is None  # type: ignore[arg-type]


def test_spans_that_nobody_counted_are_not_waited_for() -> None:
    settled = settle(an_end(CALLS), evidence_of(CALLS))
    assert settled is not None
    assert settled.complete


def test_giving_up_says_what_is_missing() -> None:
    settled = settle(an_end(CALLS, span_count=3), evidence_of([CALLS[0], a_span(1, 3)]), given_up=True)
    assert settled is not None
    assert not settled.complete
    assert settled.call_ids == ["call-1"]
    assert settled.missing == ["call-2", "spans:2"]


def test_a_call_after_the_end_is_not_named() -> None:
    settled = settle(an_end(CALLS), evidence_of([*CALLS, a_call(3, 11)]))
    assert settled is not None
    assert settled.call_ids == ["call-1", "call-2"]


def test_evidence_is_kept_without_token_ids() -> None:
    call = a_call(1, 1, prompt_token_ids=pack_ints(range(10_000)))
    item = stored_item(call)
    assert item is not None
    assert len(item.value) < 1500
    assert unpack_ints(evidence_of([call]).named_calls(["call-1"])[0].prompt_token_ids).size == 0


def test_what_belongs_to_no_rollout_is_not_kept() -> None:
    assert stored_item(a_call(1, 1, rollout_id=None)) is None
    assert stored_item(a_span(1, 1, rollout_id=None)) is None
