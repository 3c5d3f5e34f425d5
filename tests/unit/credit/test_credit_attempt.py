"""One attempt: when it is ready, what it gives, and why it is left out."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_support import call, delivered, finished, reward, rollout
from leyden.credit.core.assemble import Attempt, State, assemble
from leyden.credit.core.evidence import Evidence, pack, subject_of, unpack
from leyden.credit.core.member import Member
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import Event, FailureClass, unpack_floats, unpack_ints

DEFAULT = CreditSection()
FIRST = call("1", [1, 2], [3, 4], at=1)
SECOND = call("2", [1, 2, 3, 4, 9], [5], at=2)


def attempt(events: list[Event]) -> Attempt:
    return assemble(Evidence(one.event, one.origin) for one in delivered(events))  # type: ignore[arg-type]


def member(events: list[Event], rules: CreditSection = DEFAULT) -> Member:
    found = attempt(events)
    assert found.state in (State.COMPLETE, State.INCOMPLETE, State.FAILED)
    return member_of(found, rules)


def test_an_attempt_is_complete_only_when_every_piece_is_here() -> None:
    events = finished([FIRST, SECOND], [reward(1.0)])
    for missing in range(len(events)):
        assert attempt(events[:missing] + events[missing + 1 :]).state in (State.OPEN, State.ENDED)
    assert attempt(events).state is State.COMPLETE


def test_the_order_of_the_evidence_changes_nothing() -> None:
    evidence = [Evidence(one.event, one.origin) for one in delivered(finished([FIRST], [reward(1.0)]))]  # type: ignore[arg-type]
    seen = {member_of(assemble(order), CreditSection()).model_dump_json() for order in itertools.permutations(evidence)}
    assert len(seen) == 1


def test_an_attempt_that_will_be_retried_is_fenced_off_at_once() -> None:
    events = finished([FIRST], [reward(1.0)], final=False, failure=FailureClass.TIMEOUT)
    assert attempt(events).state is State.ABANDONED
    assert attempt([event for event in events if event.type == "rollout-ended"]).state is State.ABANDONED


def test_a_failed_rollout_needs_its_settled_calls_and_no_rewards() -> None:
    events = finished([FIRST], [reward(0.0)], failure=FailureClass.INFRASTRUCTURE)
    needed = [event for event in events if not event.type.startswith("reward")]
    assert attempt(needed).state is State.FAILED
    assert member(needed) == member(events)
    assert member(needed).policies == ["p"], "so that a group of failures is known by its policy"
    for missing in range(len(needed)):
        assert attempt(needed[:missing] + needed[missing + 1 :]).state in (State.OPEN, State.ENDED)


def test_a_call_that_was_not_settled_is_not_used() -> None:
    events = [*finished([FIRST], [reward(1.0)]), SECOND]
    [trajectory] = member(events).trajectories
    assert [span.call_id for s in trajectory.sequences for span in s.transitions] == ["1"]


def test_a_reward_that_was_not_named_complete_is_not_used() -> None:
    events = [*finished([FIRST], [reward(1.0)]), reward(5.0, rule="late")]
    assert member(events).trajectories[0].total == 1.0


@pytest.mark.parametrize(
    ("changes", "rewards", "reason"),
    [
        ({"failure": FailureClass.RUNNER_LOST}, [reward(0.0)], "failed: runner_lost"),
        ({"complete": False}, [reward(1.0)], "incomplete"),
        ({"failed_rules": ["outcome: TypeError"]}, [reward(0.1, rule="tool")], "rule failed: outcome: TypeError"),
        ({"mode": "validation"}, [reward(1.0)], "validation"),
        ({}, [], "no reward"),
    ],
)
def test_a_rollout_is_left_out_with_its_reason(changes: dict[str, Any], rewards: list[Any], reason: str) -> None:
    found = member(finished([FIRST], rewards, **changes))
    assert found.left_out == reason
    assert found.trajectories == []


def test_an_incomplete_rollout_is_trained_when_the_setting_says_so() -> None:
    events = finished([FIRST], [reward(1.0)], complete=False)
    assert attempt(events).state is State.INCOMPLETE
    assert attempt(events[:-1]).state is State.ENDED, "what the settlement names is waited for"
    found = member(events, CreditSection(incomplete="train"))
    assert found.left_out is None


@pytest.mark.parametrize(
    ("context", "how"),
    [
        (call("1", [1], [2], policy=None), "no_policy"),
        (call("1", [1], [2], policy="other"), "other_policy"),
        (call("1", [1], [2], version=None), "no_version"),
        (call("1", [1], [2], error="502"), "error"),
        (call("1", [1], [2], temperature=0.0), "greedy"),
        (call("1", [], [2]), "no_tokens"),
        (call("1", [1], []), "no_tokens"),
        (call("1", [1]), "no_tokens"),
    ],
)
def test_a_call_that_cannot_be_trained_is_context(context: Any, how: str) -> None:
    found = member(finished([context], [reward(1.0)]), CreditSection(policies=["p"]))
    assert found.left_out == "no policy call"
    assert found.calls == {how: 1}


def test_a_choice_without_a_logprob_per_token_is_not_trained() -> None:
    [choice] = FIRST.choices
    torn = FIRST.model_copy(update={"choices": [choice.model_copy(update={"logprobs": choice.logprobs[:4]})]})
    assert member(finished([torn], [reward(1.0)])).calls == {"no_logprobs": 1}


def test_packed_ids_with_half_a_token_are_context_and_not_a_crash() -> None:
    torn = FIRST.model_copy(update={"prompt_token_ids": FIRST.prompt_token_ids[:-1]})
    assert member(finished([torn], [reward(1.0)])).calls == {"no_tokens": 1}


def test_intermediate_rewards_count_in_the_return_of_every_call_and_stay_where_they_fell() -> None:
    given_rewards = [reward(1.0), reward(0.5, rule="tool", of=FIRST, weight=0.2)]
    [trajectory] = member(finished([FIRST, SECOND], given_rewards)).trajectories
    [sequence] = trajectory.sequences
    assert [span.reward for span in sequence.transitions] == [0.1, 1.0]
    [part] = trajectory.parts
    assert (part.episode.total, part.episode.outcome) == (1.1, 1.0)
    assert [step.own for step in part.episode.steps] == [0.1, 0.0]


def test_a_reward_for_a_call_that_is_context_falls_on_the_last_call() -> None:
    judge = call("0", [7], [8], policy=None, at=0)
    [trajectory] = member(finished([judge, FIRST, SECOND], [reward(0.25, of=judge)])).trajectories
    assert [span.reward for span in trajectory.sequences[0].transitions] == [0.0, 0.25]


def test_behaviour_logprobs_are_zero_wherever_the_policy_did_not_write() -> None:
    [trajectory] = member(finished([FIRST, SECOND], [reward(1.0)])).trajectories
    logprobs = unpack_floats(trajectory.sequences[0].behaviour_logprobs)
    assert logprobs.tolist() == pytest.approx([0, 0, -0.503, -0.504, 0, -0.505])


def test_calls_are_ordered_by_their_start_and_not_by_their_id() -> None:
    late, early = call("a", [1, 2, 3], [4], at=2), call("b", [1], [2], at=1)
    [trajectory] = member(finished([late, early], [reward(1.0)])).trajectories
    assert [span.call_id for span in trajectory.sequences[0].transitions] == ["b", "a"]


def test_each_policy_of_a_rollout_gets_its_own_trajectory_with_the_whole_return() -> None:
    other = call("2", [7], [8], policy="q", at=2)
    found = member(finished([FIRST, other], [reward(1.0)]))
    assert [(t.policy, t.total, len(t.sequences)) for t in found.trajectories] == [("p", 1.0, 1), ("q", 1.0, 1)]


def test_a_later_turn_that_makes_it_too_long_trains_no_prompt_token() -> None:
    long_turn = call("2", [1, 2, 3, 4, *range(100)], [5], at=2)
    [trajectory] = member(
        finished([FIRST, long_turn], [reward(1.0)]), CreditSection(max_sequence_tokens=20)
    ).trajectories
    assert trajectory.sequences == []
    assert trajectory.too_long == 1


def test_a_call_is_kept_without_its_texts_and_with_all_its_numbers() -> None:
    one = unpack(pack(Evidence(FIRST, "model-calls.v1/3/1042", "00-aa-bb-01")))
    assert (one.origin, one.traceparent) == ("model-calls.v1/3/1042", "00-aa-bb-01")
    assert one.event.request == {}  # type: ignore[union-attr]
    assert one.event.choices[0].token_ids == FIRST.choices[0].token_ids  # type: ignore[union-attr]


def test_a_call_of_no_rollout_is_evidence_for_nothing() -> None:
    assert subject_of(FIRST.model_copy(update={"rollout_id": None})) is None
    assert subject_of(FIRST) == f"{rollout(0)}:0"


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(
    st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=8),
    st.lists(st.floats(-10, 10), min_size=1, max_size=6),
)
def test_spans_hold_what_the_engine_returned_and_rewards_add_up(
    spec: list[tuple[list[int], list[list[int]]]], values: list[float]
) -> None:
    calls = [call(f"c{n}", prompt, *responses, at=n) for n, (prompt, responses) in enumerate(spec)]
    rewards = [reward(value, rule=f"r{n}", of=calls[n % len(calls)]) for n, value in enumerate(values)]
    [trajectory] = member(finished(calls, rewards)).trajectories
    by_id = {one.call_id: one for one in calls}
    for sequence in trajectory.sequences:
        ids, logprobs = unpack_ints(sequence.token_ids), unpack_floats(sequence.behaviour_logprobs)
        assert len(ids) == len(logprobs)
        outside = set(range(len(ids)))
        for span in sequence.transitions:
            choice = by_id[span.call_id].choices[span.choice]
            assert ids[span.start : span.end].tobytes() == choice.token_ids
            assert logprobs[span.start : span.end].tobytes() == choice.logprobs
            assert ids[: span.start].tobytes() == by_id[span.call_id].prompt_token_ids
            outside -= set(range(span.start, span.end))
        assert not logprobs[sorted(outside)].any()
    immediate = [span.reward for sequence in trajectory.sequences for span in sequence.transitions]
    assert math.fsum(immediate) == pytest.approx(math.fsum(values))
    assert len(immediate) == sum(len(responses) for _, responses in spec)
