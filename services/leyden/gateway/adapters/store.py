"""`RolloutStore` on Redis: every step is one script or one pipeline, bounded in time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from leyden.gateway.adapters import scripts
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.ports import EndOutcome, EndResult, QueueCounts, RolloutView, Standing
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.kafka import Retry


class RedisRolloutStore:
    """Everything under `<namespace>:`. One Redis (or a primary with replicas); not a Redis Cluster."""

    def __init__(self, redis: Redis, namespace: str, timeout_s: float = 5.0, ttl_s: int = 7 * 86_400) -> None:
        self._redis = redis
        self._ns = namespace
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._enqueue = redis.register_script(scripts.ENQUEUE)
        self._claim = redis.register_script(scripts.CLAIM)
        self._unclaim = redis.register_script(scripts.UNCLAIM)
        self._extend = redis.register_script(scripts.EXTEND)
        self._add_call = redis.register_script(scripts.ADD_CALL)
        self._end = redis.register_script(scripts.END)
        self._settle = redis.register_script(scripts.SETTLE)

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for task_id, event in events:
                pipe.set(self._key("task", task_id), event, nx=True, ex=self._ttl_s)
                pipe.get(self._key("task", task_id))
            answers = await pipe.execute()
        return [bytes(kept) for kept in answers[1::2]]

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for rollout_id, spec in rollouts:
                keys = [self._key("rollout", rollout_id), self._key("queue")]
                await self._enqueue(keys, [rollout_id, spec.model_dump_json(), spec.mode], client=pipe)
            await pipe.execute()

    async def claim(self, limit: int, runner: str, now: datetime, lease_until: datetime) -> list[Running]:
        keys = [self._key("queue"), self._key("leases")]
        async with self._step():
            rows: Any = await self._claim(keys, [self._ns, limit, runner, now.isoformat(), _ms(lease_until)])
        return [
            Running(AttemptRef(rollout.decode(), int(attempt)), RolloutSpec.model_validate_json(spec), now, runner)
            for rollout, attempt, spec in rows
        ]

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            for ref in reversed(refs):
                keys = [self._key("rollout", ref.rollout_id), self._key("queue"), self._key("leases")]
                await self._unclaim(keys, [ref.rollout_id, ref.trace_id, ref.attempt], client=pipe)
            await pipe.execute()

    async def begin(self, running: Running, lease_until: datetime) -> None:
        fields: dict[str | bytes, str | int] = {
            "spec": running.spec.model_dump_json(),
            "mode": running.spec.mode,
            "attempt": running.ref.attempt,
            "state": RolloutState.RUNNING,
            "runner": running.runner or "",
            "started_at": running.started_at.isoformat(),
        }
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key("rollout", running.ref.rollout_id), mapping=fields)  # type: ignore[arg-type]
            pipe.zadd(self._key("leases"), {running.ref.trace_id: _ms(lease_until)})
            await pipe.execute()

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        async with self._step():
            return bool(await self._extend([self._key("leases")], [ref.trace_id, _ms(lease_until)]))

    async def standing(self, ref: AttemptRef) -> Standing:
        async with self._step(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(self._key("rollout", ref.rollout_id), ["attempt", "state", "mode"])
            pipe.exists(self._key("end", ref.trace_id))
            (attempt, state, mode), ended = await pipe.execute()
        here = attempt is None or (int(attempt) == ref.attempt and state == b"running")
        return Standing(open=here and not ended, mode=(mode or b"train").decode())

    async def add_call(self, ref: AttemptRef, call_id: str) -> bool:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("end", ref.trace_id),
            self._key("calls", ref.trace_id),
        ]
        async with self._step():
            return bool(await self._add_call(keys, [ref.attempt, call_id, self._ttl_s]))

    async def end(self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool) -> EndOutcome:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("end", ref.trace_id),
            self._key("leases"),
            self._key("unsettled"),
            self._key("calls", ref.trace_id),
        ]
        arguments: list[str | int | bytes] = [ref.trace_id, ref.attempt, stored, _ms(now), int(lease_over), self._ttl_s]
        async with self._step():
            answer: Any = await self._end(keys, arguments)
        result = EndResult(answer[0].decode())
        return EndOutcome(result, answer[1], _ids(answer[2])) if len(answer) > 1 else EndOutcome(result)

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.get(self._key("end", ref.trace_id))
            pipe.smembers(self._key("calls", ref.trace_id))
            stored, calls = await pipe.execute()
        return EndOutcome(EndResult.EARLIER, stored, _ids(calls)) if stored is not None else None

    async def settle(self, ref: AttemptRef, final: bool, status: str) -> None:
        keys = [
            self._key("rollout", ref.rollout_id),
            self._key("unsettled"),
            self._key("queue"),
            self._key("ended"),
            self._key("calls", ref.trace_id),
        ]
        async with self._step():
            await self._settle(keys, [ref.rollout_id, ref.trace_id, int(final), status, self._ttl_s])

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
        )

    async def expired(self, now: datetime, limit: int) -> list[AttemptRef]:
        return await self._until("leases", now, limit)

    async def unsettled(self, ended_before: datetime, limit: int) -> list[AttemptRef]:
        return await self._until("unsettled", ended_before, limit)

    async def counts(self) -> QueueCounts:
        async with self._step(), self._redis.pipeline(transaction=True) as pipe:
            pipe.llen(self._key("queue"))
            pipe.zcard(self._key("leases"))
            pipe.get(self._key("ended"))
            queued, running, ended = await pipe.execute()
        return QueueCounts(queued, running, int(ended or 0))

    async def ready(self) -> str | None:
        """None when Redis answers, else one sentence."""
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
                str(_ms(moment)),
                byscore=True,
                offset=0,
                num=limit,
            )
        return [ref for trace in found if (ref := attempt_of_trace(trace.decode()))]

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            raise Retry(f"Redis did not do its part: {error!r}") from error

    def _key(self, *parts: str) -> str:
        return ":".join((self._ns, *parts))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _ids(members: Any) -> tuple[str, ...]:
    return tuple(sorted(member.decode() for member in members))
