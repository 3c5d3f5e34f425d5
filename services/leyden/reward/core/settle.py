"""Decides whether an attempt's evidence is complete, by counting. Reads no clock: the caller decides on timeouts."""

from leyden.events import RolloutEnded, RolloutSettled
from leyden.ids import derive
from leyden.reward.core.evidence import AttemptEvidence

PRODUCER = "reward"


def settle(ended: RolloutEnded, evidence: AttemptEvidence, given_up: bool = False) -> RolloutSettled | None:
    """The settlement if all announced calls and counted spans are present, or if `given_up`; else None.

    Calls that the end does not list came after it and are not included. If `span_count` is None, the spans present are
    used and no others are waited for.
    """
    announced = set(ended.call_ids)
    missing = sorted(announced - evidence.calls.keys())
    missing_spans = max(0, (ended.span_count or 0) - evidence.exported_spans)
    complete = not missing and missing_spans == 0
    if not complete and not given_up:
        return None
    return RolloutSettled(
        event_id=derive("settled", ended.rollout_id, ended.attempt),
        event_time=ended.event_time,
        producer=PRODUCER,
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        call_ids=sorted(announced & evidence.calls.keys()),
        span_ids=sorted(evidence.spans),
        complete=complete,
        missing=[*missing, *([f"spans:{missing_spans}"] if missing_spans else [])],
    )
