"""Puts attempts that need a verdict into a durable queue, and delays the handlers if the queue is too long."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.judging import AttemptJudge, JudgeSettings, RankingJudge, lacking
from leyden.reward.core.judging.ranking import Member, member_of
from leyden.reward.judges.ports import GroupStore, JudgeQueue

HOLD_S = 5.0
"""Longest delay of a batch. It is limited because the verdicts that empty the queue need the same consumer."""
_HOLD_STEP_S = 0.1
_ATTEMPT = "attempt:"
_GROUP = "group:"


def attempt_job(subject: str) -> str:
    """Job that judges one attempt."""
    return _ATTEMPT + subject


def group_job(judge: JudgeSettings, group_id: str) -> str:
    """Job in which one judge ranks one group; also the group's key in the store."""
    return f"{_GROUP}{judge.settings_hash}:{judge.name}:{group_id}"


def subject_of_job(job: str) -> str | None:
    """The subject of an attempt job; None for a group job."""
    return job.removeprefix(_ATTEMPT) if job.startswith(_ATTEMPT) else None


class QueueingSubmitter:
    """`JudgeSubmitter` that puts jobs into a queue. `wake` is set when new jobs may be due."""

    def __init__(
        self, judges: tuple[JudgeSettings, ...], queue: JudgeQueue, groups: GroupStore, clock: Clock, backlog: int
    ) -> None:
        self._judges = judges
        self._queue = queue
        self._groups = groups
        self._clock = clock
        self._backlog = backlog
        self.wake = asyncio.Event()

    async def submit(self, attempts: Sequence[SettledAttempt]) -> None:
        now = self._clock.now()
        jobs: dict[str, datetime] = {}
        at_once: list[str] = []
        for attempt in attempts:
            lacks = lacking(self._judges, attempt)
            if any(isinstance(judge, AttemptJudge) for judge in lacks):
                jobs[attempt_job(attempt.subject)] = now
            for judge in self._judges:
                if isinstance(judge, RankingJudge):
                    job = group_job(judge, attempt.ended.group_id)
                    if judge in lacks:
                        jobs[job] = now + timedelta(seconds=judge.group_wait_s)
                    if await self._joined(judge, job, attempt):
                        at_once.append(job)
        await self._queue.add(jobs)
        await self._queue.hurry(at_once, now)
        if jobs or at_once:
            self.wake.set()
            await self._room()

    async def _joined(self, judge: RankingJudge, job: str, attempt: SettledAttempt) -> bool:
        """Add the attempt to its group. Returns whether the group can be ranked now."""
        member: Member = member_of(judge, attempt)
        count, answered = await self._groups.join(job, member.rollout_id, member.model_dump_json().encode())
        return answered or count >= member.group_size

    async def _room(self) -> None:
        waited = 0.0
        while waited < HOLD_S and await self._queue.size() > self._backlog:
            await asyncio.sleep(_HOLD_STEP_S)
            waited += _HOLD_STEP_S
