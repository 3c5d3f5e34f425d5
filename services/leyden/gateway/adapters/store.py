"""`RolloutStore` on Redis: every step is one script or one pipeline, bounded in time."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from leyden.gateway.adapters import scripts
from leyden.gateway.adapters.scripts import PRIORITY_STEP
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
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.kafka import Retry
from leyden.state import redis_step

log = logging.getLogger(__name__)
EVERYONE = "*"


def ms(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(moment.timestamp() * 1000)


def offset(spec: RolloutSpec) -> int:
    """How far its priority moves a rollout forward in the queue."""
    return spec.priority * PRIORITY_STEP


def row(one: Restored) -> list[str | int | bytes]:
    """The arguments of RESTORE for one rollout."""
    spec, ref = one.spec, one.ref
    started = one.started_at.isoformat() if one.started_at else ""
    ready = ms(one.retry_at) if one.retry_at else 0
    ended = ms(one.ended_at) if one.ended_at else 0
    what: list[str | int | bytes] = [ref.rollout_id, ref.trace_id, spec.model_dump_json(), spec.mode, spec.lane]
    what += [offset(spec), ref.attempt, one.state, one.status or "", started, one.runner or "", ready]
    return [*what, one.end, ended]


def whose(project: str | None) -> str:
    """A project's field, which cannot be confused with `*`."""
    return EVERYONE if project is None else f"={project}"


def outcome(answer: Any) -> EndOutcome:
    """The replies of END and WITHDRAW."""
    result = EndResult(answer[0].decode())
    return EndOutcome(result, answer[1], ids(answer[2])) if len(answer) > 1 else EndOutcome(result)


def ids(members: Any) -> tuple[str, ...]:
    """The members of a set, in order."""
    return tuple(sorted(member.decode() for member in members))


def _readable(calls: bytes | str) -> list[CallInFlight]:
    """What a replica shows; empty if this version cannot read it: no attempt's end fails for it."""
    try:
        return CALLS.validate_json(calls)
    except ValidationError as error:
        log.warning("calls in flight cannot be read: %s", error)
        return []


def _status(ref: AttemptRef, row: Any, ended: Any) -> AttemptStatus:
    attempt, state, mode = row
    here = attempt is None or (int(attempt) == ref.attempt and state == b"running")
    return AttemptStatus(open=here and not ended, mode=(mode or b"train").decode())


CALLS: TypeAdapter[list[CallInFlight]] = TypeAdapter(list[CallInFlight])
EQUAL_SHARES: Mapping[str, float] = {"train": 1.0, "validation": 1.0}


class RedisRolloutStore:
    """Everything under `<namespace>:`. One Redis (or a primary with replicas); not a Redis Cluster.

    `shares`: rollouts of each mode that are handed out per round while both modes have waiting ones.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        timeout_s: float = 5.0,
        ttl_s: int = 7 * 86_400,
        shares: Mapping[str, float] = EQUAL_SHARES,
    ) -> None:
        self._redis = redis
        self._ns = namespace
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._shares = [part for mode, share in sorted(shares.items()) for part in (mode, share)]
        self._enqueue = redis.register_script(scripts.ENQUEUE)
        self._claim = redis.register_script(scripts.CLAIM)
        self._restore = redis.register_script(scripts.RESTORE)
        self._unclaim = redis.register_script(scripts.UNCLAIM)
        self._begin = redis.register_script(scripts.BEGIN)
        self._extend = redis.register_script(scripts.EXTEND)
        self._add_call = redis.register_script(scripts.ADD_CALL)
        self._show_calls = redis.register_script(scripts.SHOW_CALLS)
        self._shown: dict[str, set[str]] = {}
        self._keep_version = redis.register_script(scripts.KEEP_VERSION)
        self._end = redis.register_script(scripts.END)
        self._withdraw = redis.register_script(scripts.WITHDRAW)
        self._settle = redis.register_script(scripts.SETTLE)
        self._pause = redis.register_script(scripts.PAUSE)
        self._counts = redis.register_script(scripts.COUNTS)

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for task_id, event in events:
                pipe.set(self._key("task", task_id), event, nx=True, ex=self._ttl_s)
                pipe.get(self._key("task", task_id))
            answers = await pipe.execute()
        return [bytes(kept) for kept in answers[1::2]]

    async def task(self, task_id: str) -> bytes | None:
        async with self._step():
            kept: Any = await self._redis.get(self._key("task", task_id))
        return kept if kept is None else bytes(kept)

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for rollout_id, spec in rollouts:
                keys = [self._key("rollout", rollout_id), *map(self._key, ("lanes", "seq")), self._queue(spec)]
                what: list[str | int] = [rollout_id, spec.model_dump_json(), spec.mode, spec.lane, offset(spec)]
                await self._enqueue(keys, what, client=pipe)
            await pipe.execute()

    async def claim(
        self, limit: int, runner: str, now: datetime, lease_until: datetime, project: str | None = None
    ) -> list[Running]:
        keys = [self._key(name) for name in ("lanes", "leases", "delayed", "served", "paused", "whole")]
        asked = [self._ns, limit, runner, now.isoformat(), ms(now), ms(lease_until), whose(project), *self._shares]
        async with self._step():
            rows: Any = await self._claim(keys, asked)
        return [
            Running(AttemptRef(rollout.decode(), int(attempt)), RolloutSpec.model_validate_json(spec), now, runner)
            for rollout, attempt, spec in rows
        ]

    async def has_state(self) -> bool:
        async with self._step():
            return bool(await self._redis.exists(self._key("whole")))

    async def restore(self, rollouts: Sequence[Restored]) -> list[bool]:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for one in rollouts:
                keys = [self._key("rollout", one.ref.rollout_id)]
                keys += [self._key(name) for name in ("lanes", "seq", "delayed")]
                keys += [self._key("end", one.ref.trace_id), self._key("unsettled")]
                await self._restore(keys, [self._ns, *row(one), self._ttl_s], client=pipe)
            return [bool(written) for written in await pipe.execute()]

    async def state_restored(self, ended: int) -> None:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._key("ended"), ended, nx=True)
            pipe.set(self._key("whole"), 1)
            await pipe.execute()

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for ref in refs:
                keys = [self._key("rollout", ref.rollout_id), self._key("leases")]
                await self._unclaim(keys, [self._ns, ref.rollout_id, ref.trace_id, ref.attempt], client=pipe)
            await pipe.execute()

    async def begin(self, running: Running, lease_until: datetime) -> bool:
        row: dict[str, str | int] = {
            "spec": running.spec.model_dump_json(),
            "mode": running.spec.mode,
            "attempt": running.ref.attempt,
            "state": RolloutState.RUNNING,
            "runner": running.runner or "",
            "started_at": running.started_at.isoformat(),
        }
        keys = [self._key("rollout", running.ref.rollout_id), self._key("leases"), self._key("whole")]
        fields = [part for pair in row.items() for part in pair]
        async with self._step():
            begun: Any = await self._begin(keys, [running.ref.trace_id, ms(lease_until), *fields])
        if begun < 0:
            raise Retry(NOT_WHOLE)
        return bool(begun)

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        async with self._step():
            return bool(await self._extend([self._key("leases")], [ref.trace_id, ms(lease_until)]))

    async def attempt_status(self, ref: AttemptRef) -> AttemptStatus:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            self._ask_status(pipe, ref)
            row, ended = await pipe.execute()
        return _status(ref, row, ended)

    def _ask_status(self, pipe: Any, ref: AttemptRef) -> None:
        pipe.hmget(self._key("rollout", ref.rollout_id), ["attempt", "state", "mode"])
        pipe.exists(self._key("end", ref.trace_id))

    async def add_call(self, ref: AttemptRef, call_id: str, note: CallNote | None = None) -> bool:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("end", ref.trace_id),
            self._key("calls", ref.trace_id),
            self._key("last", ref.trace_id),
        ]
        noted = [note.error, note.finish_reason, note.output] if note else []
        async with self._step():
            return bool(await self._add_call(keys, [ref.attempt, call_id, self._ttl_s, *noted]))

    async def last_call(self, ref: AttemptRef) -> LastCall | None:
        fields = ["call", "error", "finish", "output", "repeats"]
        async with self._step():
            found: Any = await self._redis.hmget(self._key("last", ref.trace_id), fields)
        if found[0] is None:
            return None
        call_id, error, finish, output, repeats = (value.decode() for value in found)
        return LastCall(call_id, CallNote(error, finish, output), int(repeats))

    async def over(self, refs: Sequence[AttemptRef]) -> list[AttemptRef]:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for ref in refs:
                self._ask_status(pipe, ref)
            answers = await pipe.execute()
        found = zip(refs, answers[::2], answers[1::2], strict=True)
        return [ref for ref, row, ended in found if not _status(ref, row, ended).open]

    async def show_calls(self, replica: str, calls: Sequence[CallInFlight], ttl_s: float) -> None:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            if calls:
                pipe.sadd(self._key("waiting"), replica)
                pipe.set(self._key("waiting", replica), CALLS.dump_json(list(calls)), px=int(ttl_s * 1000))
            else:
                pipe.srem(self._key("waiting"), replica)
                pipe.delete(self._key("waiting", replica))
            await pipe.execute()
            await self._show_by_attempt(replica, calls, int(ttl_s * 1000))

    async def _show_by_attempt(self, replica: str, calls: Sequence[CallInFlight], ttl_ms: int) -> None:
        """The same calls by attempt, so that an attempt's end reads only its own."""
        shown: dict[str, list[CallInFlight]] = {trace: [] for trace in self._shown.get(replica, ())}
        for call in calls:
            if call.ref is not None:
                shown.setdefault(call.ref.trace_id, []).append(call)
        if not shown:
            return
        said = [CALLS.dump_json(its) if its else b"" for its in shown.values()]
        await self._show_calls([self._key("waiting-of", trace) for trace in shown], [replica, ttl_ms, *said])
        self._shown[replica] = {trace for trace, its in shown.items() if its}

    async def calls_in_flight(self) -> list[CallInFlight]:
        async with self._step():
            replicas: Any = await self._redis.smembers(self._key("waiting"))
            if not replicas:
                return []
            shown = await self._redis.mget([self._key("waiting", replica.decode()) for replica in replicas])
            if gone := [replica for replica, calls in zip(replicas, shown, strict=True) if calls is None]:
                await self._redis.srem(self._key("waiting"), *gone)
        found = [call for calls in shown if calls is not None for call in _readable(calls)]
        return sorted(found, key=lambda call: -call.seconds)

    async def unanswered(self, ref: AttemptRef) -> list[CallInFlight]:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hvals(self._key("waiting-of", ref.trace_id))
            pipe.smembers(self._key("calls", ref.trace_id))
            shown, answered = await pipe.execute()
        listed = {call_id.decode() for call_id in answered}
        found = [call for calls in shown for call in _readable(calls)]
        return [call for call in found if call.call_id not in listed]

    async def kept_version(self, ref: AttemptRef, policy: str) -> int | None:
        async with self._step():
            kept: Any = await self._redis.hget(self._key("versions", ref.trace_id), policy)
        return None if kept is None else int(kept)

    async def keep_version(self, ref: AttemptRef, policy: str, version: int, instead_of: int | None) -> None:
        arguments: list[str | int] = [policy, version, "" if instead_of is None else instead_of, self._ttl_s]
        async with self._step():
            await self._keep_version([self._key("versions", ref.trace_id)], arguments)

    async def end(
        self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool, interrupted: bool = False
    ) -> EndOutcome:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("end", ref.trace_id),
            self._key("leases"),
            self._key("unsettled"),
            self._key("calls", ref.trace_id),
        ]
        about: list[str | int | bytes] = [ref.trace_id, ref.attempt, stored, ms(now), int(lease_over), self._ttl_s]
        async with self._step():
            return outcome(await self._end(keys, [*about, int(interrupted)]))

    async def withdraw(self, ref: AttemptRef, stored: bytes, now: datetime) -> EndOutcome:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("end", ref.trace_id),
            self._key("delayed"),
            self._key("unsettled"),
            self._key("calls", ref.trace_id),
        ]
        about: list[str | int | bytes] = [self._ns, ref.rollout_id, ref.trace_id, ref.attempt, stored]
        async with self._step():
            return outcome(await self._withdraw(keys, [*about, ms(now), now.isoformat(), self._ttl_s]))

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.get(self._key("end", ref.trace_id))
            pipe.smembers(self._key("calls", ref.trace_id))
            stored, calls = await pipe.execute()
        return EndOutcome(EndResult.EARLIER, stored, ids(calls)) if stored is not None else None

    async def settle(self, ref: AttemptRef, final: bool, status: str, retry_at: datetime | None = None) -> None:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("unsettled"),
            self._key("delayed"),
            self._key("ended"),
            self._key("calls", ref.trace_id),
        ]
        about: list[str | int] = [self._ns, ref.rollout_id, ref.trace_id, int(final), status, self._ttl_s]
        async with self._step():
            await self._settle(keys, [*about, ms(retry_at) if retry_at else 0])

    async def pause(self, project: str | None, paused: bool, at: datetime) -> None:
        async with self._step():
            await self._pause([self._key("paused")], [whose(project), ms(at), int(paused)])

    async def find(self, rollout_id: str) -> RolloutView | None:
        async with self._step():
            raw: Any = await self._redis.hgetall(self._key("rollout", rollout_id))
        if not raw:
            return None
        found = {name.decode(): value.decode() for name, value in raw.items()}
        return RolloutView(
            attempt=int(found["attempt"]),
            state=RolloutState(found["state"]),
            status=found.get("status"),
            spec=RolloutSpec.model_validate_json(found["spec"]),
            started_at=datetime.fromisoformat(found["started_at"]) if "started_at" in found else None,
            runner=found.get("runner") or None,
            interrupted=int(found.get("interrupted", 0)),
        )

    async def expired(self, now: datetime, limit: int) -> list[AttemptRef]:
        return await self._until("leases", now, limit)

    async def unsettled(self, ended_before: datetime, limit: int) -> list[AttemptRef]:
        return await self._until("unsettled", ended_before, limit)

    async def counts(self) -> QueueCounts:
        keys = [self._key(name) for name in ("lanes", "leases", "delayed", "ended", "paused")]
        async with self._step():
            answer: Any = await self._counts(keys, [self._ns])
        flat, running, delayed, ended, words = answer
        lanes = {name.decode(): count for name, count in zip(flat[::2], flat[1::2], strict=True) if count}
        paused = sorted(
            name.decode().removeprefix("=")
            for name, word in zip(words[::2], words[1::2], strict=True)
            if word.endswith(b"1")
        )
        return QueueCounts(
            queued=sum(lanes.values()) + delayed,
            running=running,
            ended=int(ended),
            delayed=delayed,
            lanes=lanes,
            paused=tuple(paused),
        )

    async def ready(self) -> str | None:
        """None if Redis answers, else the problem in one sentence."""
        try:
            async with self._step():
                await self._redis.get(self._key("ended"))
        except Retry as error:
            return str(error)
        return None

    async def _until(self, what: str, moment: datetime, limit: int) -> list[AttemptRef]:
        async with self._step():
            found: Any = await self._redis.zrange(
                self._key(what),
                "-inf",
                str(ms(moment)),
                byscore=True,
                offset=0,
                num=limit,
            )
        return [ref for trace in found if (ref := attempt_of_trace(trace.decode()))]

    def _step(self) -> AbstractAsyncContextManager[None]:
        return redis_step(self._timeout_s)

    def _queue(self, spec: RolloutSpec) -> str:
        return self._key("queue", spec.lane)

    def _key(self, *parts: str) -> str:
        return ":".join((self._ns, *parts))
