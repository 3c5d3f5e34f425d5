"""Takes judging jobs from the queue, asks the judges and publishes verdicts, many concurrently.

The worker keeps no state. A job leaves the queue after Kafka has its verdicts, and a claim that is not extended
expires. After a crash another worker takes the job and finds the responses so far in the cache.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from leyden.clock import Clock
from leyden.events import VerdictRecorded
from leyden.events.codec import VERDICTS
from leyden.kafka.delivered import Outgoing, Publisher, Retry
from leyden.reward import metrics
from leyden.reward.core.evidence import AttemptEvidence, SettledAttempt
from leyden.reward.core.failures import RuleFailed
from leyden.reward.core.judging import AttemptJudge, JudgeSettings, Opinion, Question, RankingJudge, lacking, verdict
from leyden.reward.core.judging.questions import attempt_questions, explained, judgements_of
from leyden.reward.core.judging.ranking import GroupAnswer, Member, ranking_of, ranking_verdict
from leyden.reward.judges.ask import Asker
from leyden.reward.judges.ports import GroupStore, JudgeQueue
from leyden.reward.judges.submit import QueueingSubmitter, group_job, subject_of_job
from leyden.reward.ports import WaitingAttempts
from leyden.state import EvidenceStore

log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Pace:
    """Concurrency, and the duration of claims."""

    at_a_time: int = 64
    lease_s: float = 30.0
    interval_s: float = 1.0


@dataclass(frozen=True)
class Sources:
    """The stores that the worker reads."""

    evidence: EvidenceStore
    groups: GroupStore
    waiting: WaitingAttempts


class JudgeWorker:
    """Runs judging jobs. `run` is a background task; `release` gives the claims back at shutdown."""

    def __init__(
        self,
        *,
        judges: Sequence[JudgeSettings],
        askers: Mapping[str, Asker],
        submitter: QueueingSubmitter,
        queue: JudgeQueue,
        sources: Sources,
        publisher: Publisher,
        clock: Clock,
        verdicts_read: Callable[[], Awaitable[None]],
        pace: Pace = Pace(),
    ) -> None:
        self._judges = tuple(judges)
        self._rankings = [judge for judge in judges if isinstance(judge, RankingJudge)]
        self._askers = askers
        self._submitter = submitter
        self._queue = queue
        self._sources = sources
        self._publisher = publisher
        self._clock = clock
        self._verdicts_read = verdicts_read
        self._pace = pace
        self._claims: dict[str, datetime] = {}
        self._claiming = asyncio.Lock()
        self._again: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Work forever, after the verdicts recorded before the start have been read: they are not asked for again."""
        await self._verdicts_read()
        try:
            while True:
                try:
                    await self.turn()
                except Retry as error:
                    log.warning("judging failed, will retry: %s", error)
                await self._pause()
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def turn(self) -> None:
        """Extend the claims and start due jobs, up to the concurrency limit."""
        self._submitter.wake.clear()
        self._reap()
        metrics.JUDGE_WAITING.set(await self._queue.size())
        until = self._clock.now() + timedelta(seconds=self._pace.lease_s)
        async with self._claiming:
            held = await self._queue.extend(self._claims, until)
            self._claims = dict.fromkeys(held, until)
            room = self._pace.at_a_time - len(self._tasks)
            for job in await self._queue.claim(self._clock.now(), until, room) if room > 0 else []:
                self._claims[job] = until
                if job in self._tasks:
                    self._again.add(job)  # made due again while it was running: a member joined late
                else:
                    self._tasks[job] = asyncio.create_task(self._work(job))

    async def idle(self) -> None:
        """Wait until all running jobs have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())
            self._reap()

    async def release(self) -> None:
        """Shutdown step: make claimed jobs due now, so that no worker has to wait for the claims to expire."""
        await self._queue.hurry(list(self._claims), self._clock.now())

    def _reap(self) -> None:
        for job in [job for job, task in self._tasks.items() if task.done()]:
            task = self._tasks.pop(job)
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _pause(self) -> None:
        """Wait for new jobs, for the end of a running job, or for the interval."""
        wake = asyncio.create_task(self._submitter.wake.wait())
        anything = [wake, *self._tasks.values()]
        try:
            await asyncio.wait(anything, timeout=self._pace.interval_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()

    async def _work(self, job: str) -> None:
        subject = subject_of_job(job)
        is_done = False
        try:
            is_done = await (self._attempt(subject) if subject is not None else self._group(job))
        except Retry as error:
            log.warning("%s failed and will be retried when its claim expires: %s", job, error)
        async with self._claiming:
            until = self._claims.pop(job, None)
            if is_done and until is not None and job not in self._again:
                await self._queue.done({job: until})
            self._again.discard(job)

    async def _attempt(self, subject: str) -> bool:
        attempt = (await self._settled([subject])).get(subject)
        if attempt is None:
            return True  # closed, or its evidence is incomplete; in that case it will be submitted again
        judges = [judge for judge in lacking(self._judges, attempt) if isinstance(judge, AttemptJudge)]
        await _all(self._judge(judge, attempt) for judge in judges)
        return True

    async def _judge(self, judge: AttemptJudge, attempt: SettledAttempt) -> None:
        ended = attempt.ended
        try:
            about = attempt_questions(judge, attempt)
            opinions = await self._asked(judge, [one.question for one in about])
            said = [(one, opinion) for one, (opinion,) in zip(about, opinions, strict=True)]
            judgements = judgements_of(judge, ended.rollout_id, said)
            given = verdict(judge, ended.ref, ended.event_time, judgements, explained(said))
        except RuleFailed as failure:
            given = verdict(judge, ended.ref, ended.event_time, failure=str(failure))
        await self._record([given])

    async def _group(self, job: str) -> bool:
        judge = next((j for j in self._rankings if job.startswith(group_job(j, ""))), None)
        if judge is None:
            return True  # its judge's settings have changed since
        stored, answer = await self._sources.groups.load(job)
        members = [Member.model_validate_json(value) for value in stored]
        is_whole = bool(members) and len(members) >= members[0].group_size
        if answer is None and not is_whole and await self._sources.waiting.behind():
            return False  # missing members may only be unread: try again when the claim expires
        attempts = await self._settled([member.subject for member in members])
        lack = [m for m in members if m.subject in attempts and lacking((judge,), attempts[m.subject])]
        if lack and answer is None:
            found = await self._ranked(judge, job.removeprefix(group_job(judge, "")), members)
            answer = await self._sources.groups.answer(job, found.model_dump_json().encode())
        if lack and answer is not None:
            kept = GroupAnswer.model_validate_json(answer)
            await self._record([ranking_verdict(judge, member, kept) for member in lack])
        return True

    async def _ranked(self, judge: RankingJudge, group_id: str, members: Sequence[Member]) -> GroupAnswer:
        try:
            ranking = ranking_of(judge, group_id, members)
            if ranking is None:
                return GroupAnswer(reason="there were no two different runs to compare")
            [opinions] = await self._asked(judge, [ranking.question])
            return GroupAnswer.of(ranking, opinions)
        except RuleFailed as failure:
            return GroupAnswer(failure=str(failure))

    async def _asked(self, judge: JudgeSettings, questions: Sequence[Question]) -> list[list[Opinion]]:
        """The opinions for all `questions`. All are asked even if one fails, so that a retry finds them cached."""
        asker = self._askers[judge.name]
        return await _all(asker.opinions(question) for question in questions)

    async def _settled(self, subjects: Sequence[str]) -> dict[str, SettledAttempt]:
        found = {}
        for subject, items in (await self._sources.evidence.load(subjects)).items():
            known = AttemptEvidence.of(items)
            if known.ended is not None and known.settled is not None and known.has(known.settled):
                found[subject] = SettledAttempt(subject, known.ended, known.settled, known)
        return found

    async def _record(self, verdicts: Sequence[VerdictRecorded]) -> None:
        await self._publisher.publish_all([Outgoing(VERDICTS, one.rollout_id, one) for one in verdicts])
        for one in verdicts:
            outcome = "failed" if one.failure is not None else "judged" if one.judgements else "no opinion"
            metrics.VERDICTS.labels(rule=one.rule, outcome=outcome).inc()
            if one.failure is not None:
                log.warning("judge %s failed for rollout %s: %s", one.rule, one.rollout_id, one.failure)


async def _all(coroutines: Iterable[Coroutine[object, object, ResultT]]) -> list[ResultT]:
    """Run all to the end. Returns their results, or raises the first exception in order."""
    results: list[ResultT] = []
    for result in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
