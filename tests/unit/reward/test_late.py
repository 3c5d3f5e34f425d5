"""What a late evaluation is worth: horizon, caps, and rules that raise."""

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from leyden.events import Evaluation, Evidence, RewardAssigned, RewardsCompleted, SpanRecorded
from leyden.reward.core.assess import Rulebook, assess
from leyden.reward.core.late import LateOutcome, LateState, opened, revise
from leyden.reward.core.rules import Emitted, HumanFeedback, Rule, Signal, ToolStatus
from leyden.reward.core.rules.base import Shaping
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView
from unit.reward.reward_builders import a_score, a_span, an_end, evidence_of

HOUR_S = 3600.0


class HumanLike(Rule):
    """An intermediate rule that judges late."""

    name: str = "human"
    intermediate: ClassVar[bool] = True
    judges_late: ClassVar[bool] = True

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        for span in view.spans:
            if span.evaluation is None:
                continue
            if span.evaluation.value is None:
                raise RuntimeError("no number")
            yield Signal(span.evaluation.value, Evidence(kind="span", id=span.event_id))


def late(n: int, value: float | None) -> SpanRecorded:
    return a_score(n, value).model_copy(update={"event_time": an_end().event_time + timedelta(minutes=1)})


def state_of(book: Rulebook, *spans: SpanRecorded, reward: float | None = 1.0) -> LateState:
    ended = an_end(reward=reward)
    evidence = evidence_of([*spans, ended])
    settled = settle(ended, evidence)
    assert settled is not None
    result = assess(book, ended, settled, evidence)
    return opened(book, ended, result, [span for span in spans if span.evaluation is not None])


def given(book: Rulebook, state: LateState, span: SpanRecorded) -> list[float]:
    events = revise(book, state, span).events
    return [event.value * event.weight for event in events if isinstance(event, RewardAssigned)]


def test_a_late_reward_has_what_the_rules_cap_leaves() -> None:
    book = Rulebook((Emitted(cap=1.25),), 100.0, HOUR_S)
    state = state_of(book)
    assert given(book, state, late(2, 1.0)) == [0.25]
    after = revise(book, state, late(2, 1.0)).state
    assert given(book, after, late(3, -1.0)) == [0.0]


def test_the_intermediate_cap_holds_over_late_rewards_too() -> None:
    book = Rulebook((HumanLike(), ToolStatus(ok=0.1)), intermediate_cap=0.5, late_horizon_s=HOUR_S)
    state = state_of(book, a_span(1, 1))
    assert given(book, state, late(2, -1.0)) == [pytest.approx(-0.4)]


def test_rules_of_other_evidence_do_not_run_again() -> None:
    book = Rulebook((Emitted(), ToolStatus()), 100.0, HOUR_S)
    assert given(book, state_of(book, a_span(1, 1)), late(2, 0.5)) == [0.5]


def test_a_rule_that_raises_on_a_late_evaluation_leaves_what_was_known() -> None:
    book = Rulebook((Emitted(), HumanLike()), 100.0, HOUR_S)
    state = state_of(book)
    revision = revise(book, state, late(2, None))
    assert (revision.outcome, revision.state, revision.events) == (LateOutcome.FAILED, state, ())


def test_failed_rules_of_the_settled_evidence_stay_failed() -> None:
    book = Rulebook((Emitted(), HumanLike()), 100.0, HOUR_S)
    ended = an_end()
    label = a_score(1, None)
    evidence = evidence_of([label, ended])
    settled = settle(ended, evidence)
    assert settled is not None
    state = opened(book, ended, assess(book, ended, settled, evidence), [label])
    *_, completed = revise(book, state, late(2, 1.0)).events
    assert completed.failed_rules == ["human: exception: RuntimeError: no number"]  # type: ignore[union-attr]


def test_a_state_survives_its_store() -> None:
    state = state_of(Rulebook((Emitted(cap=2),), 100.0, HOUR_S), a_score(1, 0.1))
    assert LateState.model_validate_json(state.model_dump_json()) == state


def test_feedback_of_people_is_judged_late_by_its_own_rule() -> None:
    feedback = HumanFeedback(rule="human_feedback", evaluations=("thumb",), labels={"up": 1.0})
    book = Rulebook((Emitted().leaving(feedback.claimed_evaluations), feedback), 100.0, HOUR_S)
    thumb = late(2, None).model_copy(update={"evaluation": Evaluation(name="thumb", label="Up")})
    events = revise(book, state_of(book), thumb).events
    [reward] = [event for event in events if isinstance(event, RewardAssigned)]
    assert (reward.rule, reward.value, reward.call_id) == ("human_feedback", 1.0, None)


def test_a_shaped_rule_gives_nothing_late() -> None:
    feedback = HumanFeedback(rule="human_feedback", evaluations=("helpful",), shaping=Shaping(gamma=1.0))
    book = Rulebook((feedback,), 100.0, HOUR_S)
    assert revise(book, state_of(book), late(2, 1.0)).outcome is LateOutcome.NO_OPINION


def test_an_outcome_that_comes_late_is_no_longer_missing() -> None:
    book = Rulebook((Emitted(), HumanLike()), 100.0, HOUR_S)
    ended = an_end()
    evidence = evidence_of([ended])
    settled = settle(ended, evidence)
    assert settled is not None
    first = assess(book, ended, settled, evidence)
    state = opened(book, ended, first, [])
    *_, completed = revise(book, state, late(2, 1.0)).events
    assert (first.completed.outcome_missing, completed.outcome_missing) == (True, False)  # type: ignore[union-attr]


def rated_up_to(cap: float) -> Rulebook:
    """People's ratings, beside what the agent sends."""
    feedback = HumanFeedback(rule="human_feedback", evaluations=("helpful",))
    return Rulebook((Emitted().leaving(feedback.claimed_evaluations), feedback), cap, HOUR_S)


@pytest.mark.parametrize(("cap", "missing"), [(1.0, False), (0.0, True)])
def test_a_late_rating_without_weight_leaves_the_outcome_missing(cap: float, missing: bool) -> None:
    """Where the intermediate cap is spent, a person's rating is told with weight 0: it says nothing of the outcome."""
    book = rated_up_to(cap)
    state = state_of(book, reward=None)
    rating, completed = revise(book, state, late(2, 1.0)).events
    assert isinstance(rating, RewardAssigned) and rating.weight == cap
    assert isinstance(completed, RewardsCompleted) and completed.outcome_missing is missing


@hypothesis_given(st.floats(0.0, 2.0), st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=5))
def test_the_outcome_is_there_once_a_rating_has_weight(cap: float, values: list[float]) -> None:
    book = rated_up_to(cap)
    state = state_of(book, reward=None)
    has_weight = False
    for n, value in enumerate(values, 2):
        found = revise(book, state, late(n, value))
        state = found.state
        has_weight |= any(isinstance(event, RewardAssigned) and event.weight != 0 for event in found.events)
        assert state.outcome_missing is not has_weight
