"""Judging on fakes: a queue, groups and answers in memory, a scripted endpoint, and a world whose process can die."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from leyden.clock import ManualClock
from leyden.events import Event
from leyden.events.codec import ROLLOUTS, VERDICTS
from leyden.kafka.delivered import Delivered
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.judging import ChatRequest, JudgeSettings, rule_of
from leyden.reward.core.late import LateState
from leyden.reward.core.rules import Emitted, Rule
from leyden.reward.handlers import RewardConfig, RewardHandlers
from leyden.reward.judges.ask import Asker
from leyden.reward.judges.submit import QueueingSubmitter
from leyden.reward.judges.worker import JudgeWorker, Pace, Sources
from leyden.reward.late import LateRewards
from service.reward.reward_fakes import (
    NOW,
    FakeReading,
    FakeWaiting,
    Fuse,
    FusedEvidence,
    KilledError,
    RewardLog,
    sweeper_of,
)

LEASE = timedelta(seconds=30)


class FakeQueue:
    """`JudgeQueue` in memory."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.jobs: dict[str, datetime] = {}
        self._fuse = fuse or Fuse()

    async def add(self, jobs: Mapping[str, datetime]) -> None:
        self._fuse.step()
        self.jobs = {**jobs, **self.jobs}
        self._fuse.step()

    async def hurry(self, jobs: Sequence[str], at: datetime) -> None:
        self._fuse.step()
        self.jobs |= {job: min(at, self.jobs[job]) for job in jobs if job in self.jobs}
        self._fuse.step()

    async def claim(self, now: datetime, until: datetime, limit: int) -> list[str]:
        due = sorted((job for job, at in self.jobs.items() if at <= now), key=self.jobs.__getitem__)[:limit]
        self.jobs |= dict.fromkeys(due, until)
        self._fuse.step()
        return due

    async def extend(self, claims: Mapping[str, datetime], until: datetime) -> list[str]:
        held = [job for job, end in claims.items() if self.jobs.get(job) == end]
        self.jobs |= dict.fromkeys(held, until)
        return held

    async def done(self, claims: Mapping[str, datetime]) -> None:
        self._fuse.step()
        for job, end in claims.items():
            if self.jobs.get(job) == end:
                del self.jobs[job]
        self._fuse.step()

    async def size(self) -> int:
        return len(self.jobs)


class FakeGroups:
    """`GroupStore` in memory."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.members: dict[str, dict[str, bytes]] = {}
        self.answers: dict[str, bytes] = {}
        self._fuse = fuse or Fuse()

    async def join(self, group: str, rollout_id: str, member: bytes) -> tuple[int, bool]:
        self._fuse.step()
        self.members.setdefault(group, {}).setdefault(rollout_id, member)
        self._fuse.step()
        return len(self.members[group]), group in self.answers

    async def load(self, group: str) -> tuple[list[bytes], bytes | None]:
        return [value for _, value in sorted(self.members.get(group, {}).items())], self.answers.get(group)

    async def answer(self, group: str, value: bytes) -> bytes:
        self._fuse.step()
        kept = self.answers.setdefault(group, value)
        self._fuse.step()
        return kept


class FakeCache:
    """`AnswerCache` in memory."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.answers: dict[str, str] = {}
        self._fuse = fuse or Fuse()

    async def get(self, key: str) -> str | None:
        return self.answers.get(key)

    async def put(self, key: str, text: str) -> None:
        self.answers[key] = text  # dying before this is the one moment at which an answer is paid for in vain
        self._fuse.step()


class FakeLateStates:
    """`LateStates` in memory."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.states: dict[str, LateState] = {}
        self._fuse = fuse or Fuse()

    async def load(self, subjects: Sequence[str]) -> Mapping[str, LateState]:
        return {subject: self.states[subject] for subject in subjects if subject in self.states}

    async def save(self, states: Mapping[str, LateState]) -> None:
        self._fuse.step()
        for subject, state in states.items():
            if subject not in self.states or self.states[subject].revision <= state.revision:
                self.states[subject] = state
        self._fuse.step()


Script = Callable[[ChatRequest], str]


def scored(score: float) -> Script:
    """A judge that gives everything this score."""
    return lambda _: json.dumps({"explanation": "so", "score": score})


def ranked(score_of: Callable[[str], float]) -> Script:
    """A judge that gives each candidate what `score_of` makes of its text."""

    def answer(request: ChatRequest) -> str:
        _, *parts = str(request.messages[1]["content"]).split("== Candidate ")
        entries = [{"candidate": n, "explanation": "", "score": score_of(text)} for n, text in enumerate(parts, 1)]
        return json.dumps({"candidates": entries})

    return answer


class FakeEndpoint:
    """Answers by script and counts what would have been paid for."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[ChatRequest] = []

    async def ask(self, request: ChatRequest) -> str:
        self.asked.append(request)
        return self.script(request)


class JudgedWorld:
    """One reward service with judges. Its stores and its log outlive the process: `restart` makes another one."""

    def __init__(
        self,
        judges: Sequence[JudgeSettings] = (),
        script: Script | None = None,
        rules: Sequence[Rule] = (Emitted(),),
        decides: bool = True,
        horizon_s: float = 0.0,
        fuse: Fuse | None = None,
    ) -> None:
        self.judges = tuple(judges)
        self.book = Rulebook((*rules, *map(rule_of, judges)), 100.0, horizon_s)
        self.decides = decides
        self.fuse = fuse or Fuse()
        self.clock = ManualClock(NOW)
        self.evidence = FusedEvidence(self.fuse)
        self.waiting = FakeWaiting(self.clock, self.fuse)
        self.log = RewardLog(self.fuse.step)
        self.queue = FakeQueue(self.fuse)
        self.groups = FakeGroups(self.fuse)
        self.cache = FakeCache(self.fuse)
        self.states = FakeLateStates(self.fuse)
        self.endpoint = FakeEndpoint(script or scored(0.5))
        self.offset = 0
        self.read = 0
        self.restart()

    def restart(self) -> None:
        config = RewardConfig(self.book, self.decides, self.judges)
        self.submitter = QueueingSubmitter(self.judges, self.queue, self.groups, self.clock, 1000)
        late = LateRewards(self.book, self.states, self.log)
        self.handlers = RewardHandlers(
            evidence=self.evidence,
            waiting=self.waiting,
            publisher=self.log,
            config=config,
            clock=self.clock,
            submitter=self.submitter,
            late=late,
        )
        self.sweeper = sweeper_of(self.handlers, self.waiting, FakeReading(), self.clock)
        self.worker = JudgeWorker(
            judges=self.judges,
            askers={judge.name: Asker(judge.name, self.endpoint, self.cache) for judge in self.judges},
            submitter=self.submitter,
            queue=self.queue,
            sources=Sources(self.evidence, self.groups, self.waiting),
            publisher=self.log,
            clock=self.clock,
            verdicts_read=_nothing_unread,
            pace=Pace(lease_s=LEASE.total_seconds()),
        )

    async def deliver(self, *events: Event) -> None:
        """One batch, at the next offsets."""
        batch = [Delivered(e, "t", "k", 0, self.offset + n, f"t/0/{self.offset + n}") for n, e in enumerate(events)]
        self.offset += len(events)
        await self.handlers.on_batch(batch)
        await self.sweep()

    async def sweep(self) -> None:
        """Ended attempts are looked at, if this service decides."""
        if self.decides:
            await self.sweeper.sweep()

    async def judge(self) -> None:
        """Whatever is due is judged."""
        await self.worker.turn()
        await self.worker.idle()

    def own(self) -> list[Event]:
        """What the service wrote and consumes."""
        return [record.event for record in self.log.published if record.topic in (ROLLOUTS, VERDICTS)]  # type: ignore[misc]

    async def settle(self) -> None:
        """Read back and judge until nothing more comes of it."""
        while True:
            before = len(self.log.published), self.read
            events = self.own()[self.read :]
            self.read += len(events)
            if events:
                await self.deliver(*events)
            await self.judge()
            if (len(self.log.published), self.read) == before:
                return

    async def live(self, *batches: Sequence[Event]) -> None:
        """Consume each of `batches` and what comes of it, until nothing more does. A process that dies is followed by
        another, which goes on from what is committed.
        """
        log: list[Event] = []
        committed, taken, quiet = 0, 0, True
        todo = list(batches)
        while todo or not quiet:
            if quiet:
                log += todo.pop(0)
            own = self.own()
            log += own[taken:]
            taken = len(own)
            try:
                new = [Delivered(e, "t", "k", 0, committed + n, "o") for n, e in enumerate(log[committed:])]
                if new:
                    await self.handlers.on_batch(new)
                committed = len(log)
                await self.sweep()
                await self.judge()
                due = any(at <= self.clock.now() + LEASE for at in self.queue.jobs.values())
                quiet = not new and not due and len(self.own()) == taken
            except KilledError:
                quiet = False
                self.fuse.at = None
                self.restart()
                self.clock.set(self.clock.now() + LEASE)


async def _nothing_unread() -> None:
    return None
