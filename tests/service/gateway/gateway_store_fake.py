"""`RolloutStore` in memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from leyden.gateway.core.reply import CallNote, LastCall
from leyden.gateway.core.restoring import Restored
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.ports import (
    NOT_WHOLE,
    AttemptStatus,
    CallInFlight,
    EndOutcome,
    EndResult,
    QueueCounts,
    RolloutView,
)
from leyden.ids import AttemptRef
from leyden.kafka import Retry


@dataclass
class _Row:
    spec: RolloutSpec
    attempt: int = 0
    state: RolloutState = RolloutState.QUEUED
    status: str | None = None
    runner: str | None = None
    started_at: datetime | None = None
    interrupted: int = 0
    position: int = 0
    """Among the queued of its lane and priority."""


@dataclass
class MemoryStore:
    """`RolloutStore` in memory. `fail_at` names methods that raise `Retry` the next time, before doing anything."""

    tasks: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, _Row] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    delayed: dict[str, datetime] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=lambda: {"train": 1.0, "validation": 1.0})
    served: dict[str, float] = field(default_factory=dict)
    now_served: float = 0.0
    words: dict[str | None, tuple[datetime, bool]] = field(default_factory=dict)
    last: dict[AttemptRef, LastCall] = field(default_factory=dict)
    whole: bool = True
    leases: dict[AttemptRef, datetime] = field(default_factory=dict)
    ends: dict[AttemptRef, bytes] = field(default_factory=dict)
    not_settled: dict[AttemptRef, datetime] = field(default_factory=dict)
    calls: dict[AttemptRef, set[str]] = field(default_factory=dict)
    versions: dict[tuple[AttemptRef, str], int] = field(default_factory=dict)
    fail_at: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    waiting: dict[str, list[CallInFlight]] = field(default_factory=dict)
    """Replica → its calls in flight."""

    def _step(self, name: str) -> None:
        if self.fail_at[name]:
            self.fail_at[name] -= 1
            raise Retry(f"Redis failed at {name}")

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        self._step("accept_tasks")
        return [self.tasks.setdefault(task_id, event) for task_id, event in events]

    async def task(self, task_id: str) -> bytes | None:
        self._step("task")
        return self.tasks.get(task_id)

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        self._step("enqueue")
        for rollout_id, spec in rollouts:
            if rollout_id not in self.rows:
                self.rows[rollout_id] = _Row(spec, position=len(self.rows))
                self.queue.append(rollout_id)

    async def claim(
        self, limit: int, runner: str, now: datetime, lease_until: datetime, project: str | None = None
    ) -> list[Running]:
        self._step("claim")
        if not self.whole:
            return []
        for rollout_id in [one for one, ready in self.delayed.items() if ready <= now]:
            del self.delayed[rollout_id]
            self.queue.append(rollout_id)
        claimed: list[Running] = []
        while len(claimed) < limit and (first := self._next(project)) is not None:
            self.queue.remove(first)
            row = self.rows[first]
            row.state, row.runner, row.started_at = RolloutState.RUNNING, runner, now
            ref = AttemptRef(first, row.attempt)
            self.leases[ref] = lease_until
            claimed.append(Running(ref, row.spec, now, runner))
        return claimed

    def _next(self, project: str | None) -> str | None:
        """The first of the lane that was served least for its share."""
        lanes: dict[str, list[str]] = {}
        for rollout_id in self.queue:
            spec = self.rows[rollout_id].spec
            if project in (None, spec.project) and not self._is_paused(spec.project):
                lanes.setdefault(spec.lane, []).append(rollout_id)
        if not lanes:
            return None
        lane = min(sorted(lanes), key=lambda name: max(self.served.get(name, 0.0), self.now_served))
        self.now_served = max(self.served.get(lane, 0.0), self.now_served)
        self.served[lane] = self.now_served + 1 / self.shares[lane.partition(":")[0]]
        return min(lanes[lane], key=lambda one: (-self.rows[one].spec.priority, self.rows[one].position))

    def _is_paused(self, project: str | None) -> bool:
        words = [self.words.get(None), self.words.get(project)]
        return any(word is not None and word[1] for word in words)

    async def pause(self, project: str | None, paused: bool, at: datetime) -> None:
        self._step("pause")
        known = self.words.get(project)
        if known is None or known[0] <= at:
            self.words[project] = (at, paused)

    async def has_state(self) -> bool:
        self._step("has_state")
        return self.whole

    async def restore(self, rollouts: Sequence[Restored]) -> list[bool]:
        self._step("restore")
        return [self._put_back(one) for one in rollouts]

    def _put_back(self, one: Restored) -> bool:
        rollout_id, attempt = one.ref
        if row := self.rows.get(rollout_id):
            behind = row.attempt < attempt or (row.attempt == attempt and one.state is not RolloutState.QUEUED)
            if row.state is not RolloutState.QUEUED or not behind:
                return False
            self.queue = [other for other in self.queue if other != rollout_id]
            self.delayed.pop(rollout_id, None)
        self.rows[rollout_id] = _Row(
            one.spec, attempt, one.state, one.status, one.runner, one.started_at, position=len(self.rows)
        )
        if one.state is RolloutState.RUNNING:
            assert one.ended_at is not None
            self.ends[one.ref], self.not_settled[one.ref] = one.end, one.ended_at
        elif one.state is RolloutState.QUEUED and one.retry_at is not None:
            self.delayed[rollout_id] = one.retry_at
        elif one.state is RolloutState.QUEUED:
            self.queue.append(rollout_id)
        return True

    async def state_restored(self, ended: int) -> None:
        self._step("state_restored")
        self.ended = self.ended or ended
        self.whole = True

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        self._step("unclaim")
        for ref in refs:
            if self.leases.pop(ref, None) and self.rows[ref.rollout_id].attempt == ref.attempt:
                self.rows[ref.rollout_id].state = RolloutState.QUEUED
                self.queue.append(ref.rollout_id)

    async def begin(self, running: Running, lease_until: datetime) -> bool:
        self._step("begin")
        if not self.whole:
            raise Retry(NOT_WHOLE)
        if running.ref.rollout_id in self.rows:
            return False
        self.rows[running.ref.rollout_id] = _Row(
            running.spec, running.ref.attempt, RolloutState.RUNNING, None, running.runner, running.started_at
        )
        self.leases[running.ref] = lease_until
        return True

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        self._step("extend")
        if ref not in self.leases:
            return False
        self.leases[ref] = lease_until
        return True

    def _open(self, ref: AttemptRef) -> bool:
        row = self.rows.get(ref.rollout_id)
        here = row is None or (row.attempt == ref.attempt and row.state is RolloutState.RUNNING)
        return here and ref not in self.ends

    async def attempt_status(self, ref: AttemptRef) -> AttemptStatus:
        self._step("attempt_status")
        row = self.rows.get(ref.rollout_id)
        return AttemptStatus(self._open(ref), row.spec.mode if row else "train")

    async def add_call(self, ref: AttemptRef, call_id: str, note: CallNote | None = None) -> bool:
        self._step("add_call")
        if not self._open(ref):
            return False
        known = self.calls.setdefault(ref, set())
        if note is not None and call_id not in known:
            seen = self.last.get(ref)
            again = seen is not None and note.output != "" and seen.note.output == note.output
            self.last[ref] = LastCall(call_id, note, seen.repeats + 1 if seen and again else 1)
        known.add(call_id)
        return True

    async def last_call(self, ref: AttemptRef) -> LastCall | None:
        self._step("last_call")
        return self.last.get(ref)

    async def over(self, refs: Sequence[AttemptRef]) -> list[AttemptRef]:
        self._step("over")
        return [ref for ref in refs if not self._open(ref)]

    async def show_calls(self, replica: str, calls: Sequence[CallInFlight], ttl_s: float) -> None:
        self._step("show_calls")
        self.waiting[replica] = list(calls)

    async def calls_in_flight(self) -> list[CallInFlight]:
        self._step("calls_in_flight")
        return sorted((call for calls in self.waiting.values() for call in calls), key=lambda call: -call.seconds)

    async def unanswered(self, ref: AttemptRef) -> list[CallInFlight]:
        listed = self.calls.get(ref, set())
        return [call for call in await self.calls_in_flight() if call.ref == ref and call.call_id not in listed]

    async def kept_version(self, ref: AttemptRef, policy: str) -> int | None:
        self._step("kept_version")
        return self.versions.get((ref, policy))

    async def keep_version(self, ref: AttemptRef, policy: str, version: int, instead_of: int | None) -> None:
        self._step("keep_version")
        if self.versions.get((ref, policy)) in (None, instead_of):
            self.versions[ref, policy] = version

    async def end(
        self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool, interrupted: bool = False
    ) -> EndOutcome:
        self._step("end")
        if earlier := await self.find_end(ref):
            return earlier
        row = self.rows.get(ref.rollout_id)
        if row is None or row.attempt != ref.attempt or row.state is not RolloutState.RUNNING:
            self.leases.pop(ref, None)
            return EndOutcome(EndResult.NOT_RUNNING)
        if lease_over and self.leases.get(ref, now) > now:
            return EndOutcome(EndResult.LEASED)
        row.interrupted += interrupted
        self.ends[ref] = stored
        self.leases.pop(ref, None)
        self.not_settled[ref] = now
        return EndOutcome(EndResult.FIRST, stored, tuple(sorted(self.calls.get(ref, ()))))

    async def withdraw(self, ref: AttemptRef, stored: bytes, now: datetime) -> EndOutcome:
        self._step("withdraw")
        if earlier := await self.find_end(ref):
            return earlier
        row = self.rows.get(ref.rollout_id)
        if row is None or row.attempt != ref.attempt or row.state is not RolloutState.QUEUED:
            return EndOutcome(EndResult.NOT_RUNNING)
        self.queue = [one for one in self.queue if one != ref.rollout_id]
        self.delayed.pop(ref.rollout_id, None)
        row.state, row.runner, row.started_at = RolloutState.RUNNING, None, now
        self.ends[ref] = stored
        self.not_settled[ref] = now
        return EndOutcome(EndResult.FIRST, stored, ())

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        self._step("find_end")
        if ref not in self.ends:
            return None
        return EndOutcome(EndResult.EARLIER, self.ends[ref], tuple(sorted(self.calls.get(ref, ()))))

    async def settle(self, ref: AttemptRef, final: bool, status: str, retry_at: datetime | None = None) -> None:
        self._step("settle")
        if self.not_settled.pop(ref, None) is None:
            return
        row = self.rows[ref.rollout_id]
        if final:
            row.state, row.status = RolloutState.ENDED, status
            self.ended += 1
        else:
            row.attempt, row.state = row.attempt + 1, RolloutState.QUEUED
            if retry_at is not None:
                self.delayed[ref.rollout_id] = retry_at
            else:
                self.queue.append(ref.rollout_id)

    async def find(self, rollout_id: str) -> RolloutView | None:
        self._step("find")
        row = self.rows.get(rollout_id)
        if row is None:
            return None
        return RolloutView(row.attempt, row.state, row.status, row.spec, row.started_at, row.runner, row.interrupted)

    async def expired(self, now: datetime, limit: int) -> list[AttemptRef]:
        self._step("expired")
        return [ref for ref, until in self.leases.items() if until <= now][:limit]

    async def unsettled(self, ended_before: datetime, limit: int) -> list[AttemptRef]:
        self._step("unsettled")
        return [ref for ref, at in self.not_settled.items() if at <= ended_before][:limit]

    async def counts(self) -> QueueCounts:
        lanes = Counter(self.rows[one].spec.lane for one in self.queue)
        paused = tuple(sorted("*" if whose is None else whose for whose, (_, off) in self.words.items() if off))
        queued = len(self.queue) + len(self.delayed)
        return QueueCounts(
            queued=queued,
            running=len(self.leases),
            ended=self.ended,
            delayed=len(self.delayed),
            lanes=dict(lanes),
            paused=paused,
        )
