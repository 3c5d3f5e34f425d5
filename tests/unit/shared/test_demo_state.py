"""What the demo counts: distinct things, so that redelivery and restarts change nothing."""

from datetime import UTC, datetime

from leyden.cli.demo.state import DemoState
from leyden.events import BatchManifest, RolloutEnded, TrainingStepCompleted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def step(number: int, reward: float) -> TrainingStepCompleted:
    manifest = BatchManifest(sequence_ids=[], group_ids=[], origins=[], positions={}, seed=0, settings_hash="h")
    return TrainingStepCompleted(
        event_id=f"s{number}",
        event_time=NOW,
        producer="test",
        policy="policy",
        step=number,
        version=number,
        metrics={"reward/mean": reward},
        manifest=manifest,
    )


def ended(rollout: str, attempt: int, final: bool) -> RolloutEnded:
    return RolloutEnded(
        event_id=f"{rollout}{attempt}",
        event_time=NOW,
        producer="test",
        rollout_id=rollout,
        attempt=attempt,
        status="succeeded" if final else "failed",
        final=final,
        group_id="g",
        group_size=1,
        call_ids=[],
        started_at=NOW,
    )


def test_what_comes_twice_counts_once() -> None:
    state = DemoState(updates=2, rollouts_per_update=1)
    for event in [ended("r1", 0, False), ended("r1", 1, True), ended("r1", 1, True), step(1, 0.5), step(1, 0.5)]:
        state.see(event)
    assert state.finished_rollouts == 1
    assert state.rewards == [0.5]


def test_the_rise_compares_the_first_with_the_last_third() -> None:
    state = DemoState(updates=6, rollouts_per_update=1)
    for number, reward in enumerate([0.1, 0.3, 0.5, 0.5, 0.8, 1.0], start=1):
        state.see(step(number, reward))
    assert state.learned() == (0.2, 0.9)


def test_an_update_that_changed_no_weight_waits_for_the_version_before_it() -> None:
    state = DemoState(updates=3, rollouts_per_update=1)
    state.see_version(0)
    assert state.is_current
    state.see(step(1, 0.5))
    assert not state.is_current
    state.see_version(1)
    state.see(step(2, 1.0).model_copy(update={"version": 1}))
    assert (state.trained_version, state.is_current) == (1, True)
