"""Builds `VerdictRecorded`."""

from collections.abc import Iterable
from datetime import datetime

from leyden.events import Judgement, VerdictRecorded
from leyden.ids import AttemptRef, derive
from leyden.reward.core.judging.judge import JudgeSettings
from leyden.reward.core.settle import PRODUCER

EXPLANATION_CHARS = 4000


def verdict(
    judge: JudgeSettings,
    ref: AttemptRef,
    event_time: datetime,
    judgements: Iterable[Judgement] = (),
    explanation: str = "",
    failure: str | None = None,
) -> VerdictRecorded:
    """The verdict of `judge` on an attempt. `event_time` is the time of the attempt's end.

    `failure` is the text of a `RuleFailed`.
    """
    return VerdictRecorded(
        event_id=derive("verdict", ref.rollout_id, ref.attempt, judge.name, judge.settings_hash),
        event_time=event_time,
        producer=PRODUCER,
        rollout_id=ref.rollout_id,
        attempt=ref.attempt,
        rule=judge.name,
        settings_hash=judge.settings_hash,
        judgements=list(judgements),
        failure=failure,
        model=judge.model,
        explanation=explanation[:EXPLANATION_CHARS],
    )
