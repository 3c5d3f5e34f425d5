"""Whether an attempt's evidence is complete: counted, never timed. `given_up` is a clock's word, from outside."""

from leyden.events import RolloutEnded, RolloutSettled
from leyden.ids import derive
from leyden.reward.core.evidence import AttemptEvidence

PRODUCER = "reward"


def settle(ended: RolloutEnded, evidence: AttemptEvidence, given_up: bool = False) -> RolloutSettled | None:
    """The settlement of an attempt whose announced calls and counted spans are all here, or given up on; else None.

    A call that its end did not announce came after it, and is not named. Nobody counted the spans (`span_count` None):
    those that are here are taken, and none is waited for.
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
