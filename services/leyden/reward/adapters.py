"""`WaitingAttempts` in Redis, and the runner of the run file's reward functions."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import cast

from redis.asyncio import Redis

from leyden.reward.sandbox.isolated import IsolatedFunction
from leyden.reward.sandbox.local import LocalFunction
from leyden.reward.sandbox.runner import Executor, FunctionRunner, RetriedFunction, RetrySettings
from leyden.reward.sandbox.spec import CallSpec, UnusableFunctionError, load_function
from leyden.reward.settings import FunctionSettings, RewardSection
from leyden.state import RedisBacklog, redis_or_retry

DEFAULT_TIMEOUT_S = 10.0


class RedisWaitingAttempts:
    """`WaitingAttempts` as two sorted sets under `namespace`: unread ones by number of reading, others by deadline.

    An attempt may be in both, if a replica was killed between two writes; it is then unread.
    """

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._unread = f"{namespace}:unread"
        self._deadlines = f"{namespace}:deadlines"
        self._readings = f"{namespace}:readings"
        self._backlog = RedisBacklog(redis, f"{namespace}:behind")

    async def add(self, subjects: Sequence[str]) -> None:
        known = await self.among(subjects)
        new = [subject for subject in dict.fromkeys(subjects) if subject not in known]
        if new:
            with redis_or_retry():
                # A reading that begins between the two commands began after these ends, so it covers them.
                begun = int(await self._redis.get(self._readings) or 0)
                await self._redis.zadd(self._unread, dict.fromkeys(new, begun), nx=True)

    async def any_due(self, now: datetime) -> bool:
        with redis_or_retry():
            async with self._redis.pipeline(transaction=False) as both:
                both.zcard(self._unread)
                both.zcount(self._deadlines, "-inf", now.timestamp())
                return any(await both.execute())

    async def begin_reading(self) -> int:
        with redis_or_retry():
            return int(await self._redis.incr(self._readings))

    async def unread(self, before: int, limit: int) -> list[str]:
        with redis_or_retry():
            found = await self._redis.zrangebyscore(self._unread, "-inf", f"({before}", start=0, num=limit)
        return [subject.decode() for subject in cast(list[bytes], found)]

    async def have_read(self, subjects: Sequence[str], until: datetime) -> None:
        unread = [subject for subject, is_unread in (await self.among(subjects)).items() if is_unread]
        if unread:
            with redis_or_retry():
                await self._redis.zadd(self._deadlines, dict.fromkeys(unread, until.timestamp()), nx=True)
                await self._redis.zrem(self._unread, *unread)

    async def among(self, subjects: Sequence[str]) -> dict[str, bool]:
        distinct = list(dict.fromkeys(subjects))
        if not distinct:
            return {}
        with redis_or_retry():
            async with self._redis.pipeline(transaction=False) as both:
                both.zmscore(self._unread, distinct)
                both.zmscore(self._deadlines, distinct)
                unread, deadlines = await both.execute()
        found = zip(distinct, unread, deadlines, strict=True)
        return {subject: number is not None for subject, number, at in found if number is not None or at is not None}

    async def remove(self, subjects: Sequence[str]) -> None:
        if subjects:
            with redis_or_retry():
                async with self._redis.pipeline(transaction=False) as both:
                    both.zrem(self._unread, *subjects)
                    both.zrem(self._deadlines, *subjects)
                    await both.execute()

    async def due(self, now: datetime, limit: int) -> list[str]:
        with redis_or_retry():
            found = await self._redis.zrangebyscore(self._deadlines, "-inf", now.timestamp(), start=0, num=limit)
        return [subject.decode() for subject in cast(list[bytes], found)]

    async def put_off(self, subjects: Sequence[str], until: datetime) -> None:
        if subjects:
            with redis_or_retry():
                await self._redis.zadd(self._deadlines, dict.fromkeys(subjects, until.timestamp()), xx=True)

    async def mark_behind(self, for_s: float) -> None:
        await self._backlog.mark_behind(for_s)

    async def behind(self) -> bool:
        return await self._backlog.behind()


def function_runner(
    settings: Sequence[FunctionSettings], answered: Callable[[], None] = lambda: None
) -> FunctionRunner:
    """The runner of the run file's functions. Raises `RunFileError` if a local one cannot be loaded.

    `answered` is called after each answer.
    """
    return FunctionRunner(
        [
            RetriedFunction(one.rule_name, _executor(one, answered), RetrySettings(retries=one.retries))
            for one in settings
        ]
    )


def unusable_functions(section: RewardSection) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The reward functions of a section that cannot be loaded: where in the section, and why. Imports them."""
    for number, one in enumerate(section.functions):
        if not one.entry:
            continue
        try:
            load_function(one.entry)
        except UnusableFunctionError as error:
            yield ("functions", number, "entry"), f"{error}. A module beside the run file is found"
        except Exception as error:  # noqa: BLE001 - importing a team's module may raise anything
            yield ("functions", number, "entry"), f"{one.entry!r}: importing it failed: {type(error).__name__}: {error}"


def _executor(settings: FunctionSettings, answered: Callable[[], None]) -> Executor:
    grader = settings.grader
    usual_s = grader.longest_s if grader is not None else None
    spec = CallSpec(
        entry=settings.entry,
        grader=grader.grader if grader is not None else "",
        parameters=grader.model_dump(mode="json", by_alias=True) if grader is not None else {},
        batched=settings.batched,
        timeout_s=settings.timeout_s or usual_s or DEFAULT_TIMEOUT_S,
        memory_mb=settings.memory_mb,
        writable=tuple(str(folder.absolute()) for folder in settings.writable),
        environment=settings.environment,
    )
    if settings.runs_isolated:
        return IsolatedFunction(spec, settings.workers, answered)
    return LocalFunction(spec, answered)
