"""Retries: which failures, how many, how long after; the same for every replica that asks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Failure, FailureClass, RetryPolicy
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, Running, ended, retry_delay, will_retry
from leyden.ids import MAX_ATTEMPTS, AttemptRef, rollout_id_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGENT = Failure(failure_class=FailureClass.AGENT_EXCEPTION)


def spec(most: int = 3, **retry: object) -> RolloutSpec:
    return RolloutSpec(group_id="g", max_attempts=most, retry=RetryPolicy.model_validate(retry))


@pytest.mark.parametrize(
    ("status", "attempt", "most", "again"),
    [("failed", 0, 3, True), ("failed", 1, 3, True), ("failed", 2, 3, False), ("succeeded", 0, 3, False),
     ("failed", 0, 1, False)],
)  # fmt: skip
def test_only_a_failed_attempt_is_tried_again(status: str, attempt: int, most: int, again: bool) -> None:
    assert will_retry(status, AGENT if status == "failed" else None, attempt, spec(most)) is again


def test_a_policy_names_the_failures_that_are_tried_again() -> None:
    chosen = spec(on=["infrastructure", "runner_lost"])
    assert will_retry("failed", Failure(failure_class=FailureClass.RUNNER_LOST), 0, chosen)
    assert not will_retry("failed", AGENT, 0, chosen)
    assert not will_retry("failed", AGENT, 0, spec(on=[]))


def test_what_was_cancelled_is_never_tried_again() -> None:
    off = Failure(failure_class=FailureClass.CANCELLED)
    assert not will_retry("failed", off, 0, spec())
    assert not will_retry("failed", off, 0, spec(on=["cancelled"]))


@given(
    most=st.integers(2, 6), ends=st.lists(st.sampled_from(["agent_exception", "interrupted", "timeout"]), max_size=30)
)
def test_interrupted_attempts_do_not_count(most: int, ends: list[str]) -> None:
    """As many counted failures as `max_attempts` end a rollout; the first ten interruptions never do."""
    for attempt, kind in enumerate(ends):
        before = ends[:attempt].count("interrupted")
        again = will_retry("failed", Failure(failure_class=FailureClass(kind)), attempt, spec(most), before)
        counted = attempt + 1 - min(before, 10)
        assert again is ((kind == "interrupted" and before < 10) or counted < most)
        if not again:
            return


def test_a_rollout_is_interrupted_at_once_at_first_then_after_a_wait_and_not_for_ever() -> None:
    stop = Failure(failure_class=FailureClass.INTERRUPTED)
    ref, attempt = AttemptRef(rollout_id_of("t", 0), 0), 0
    while True:
        running = Running(ref._replace(attempt=attempt), spec(backoff_s=8), NOW, interrupted=attempt)
        event = ended(running, EndReport(status="failed", failure=stop), NOW).event
        if event.final:
            break
        assert event.retry_at == NOW + (retry_delay(running.ref, running.spec.retry) if attempt else timedelta())
        attempt += 1
    assert attempt == 12, "ten that do not count, then three that do"
    assert will_retry("failed", stop, 0, spec(on=["timeout"]))
    assert not will_retry("failed", stop, 0, spec(1))
    assert not will_retry("failed", stop, MAX_ATTEMPTS - 1, spec())


@given(
    attempt=st.integers(0, MAX_ATTEMPTS),
    base=st.floats(0, 86_400),
    cap=st.floats(0, 86_400),
    sample=st.integers(0, 50),
)
def test_a_delay_is_between_half_and_whole_of_the_doubled_and_capped(
    attempt: int, base: float, cap: float, sample: int
) -> None:
    ref = AttemptRef(rollout_id_of("t", sample), attempt)
    policy = RetryPolicy(backoff_s=base, backoff_cap_s=cap)
    whole = min(cap, base * 2.0 ** min(attempt, 32))
    delay = retry_delay(ref, policy).total_seconds()
    assert whole / 2 - 0.001 <= delay <= whole + 0.001
    assert retry_delay(ref, policy) == retry_delay(AttemptRef(ref.rollout_id, attempt), policy)


def test_attempts_that_failed_together_come_back_apart() -> None:
    delays = {retry_delay(AttemptRef(rollout_id_of("t", n), 0), RetryPolicy(backoff_s=10)) for n in range(20)}
    assert len(delays) == 20


def test_the_end_says_when_the_next_attempt_may_begin() -> None:
    running = Running(AttemptRef(rollout_id_of("t", 0), 0), spec(backoff_s=8), NOW)
    event = ended(running, EndReport(status="failed", failure=AGENT), NOW).event
    assert not event.final and event.retry_at is not None
    assert NOW + timedelta(seconds=4) <= event.retry_at <= NOW + timedelta(seconds=8)
    assert ended(running, EndReport(status="succeeded"), NOW).event.retry_at is None
