"""Everything that judging is made of, put together: part of the composition root."""

import os
from dataclasses import dataclass
from functools import partial

import httpx

from leyden.clock import Clock
from leyden.reward.core.judging import JudgeSettings
from leyden.reward.judges.ask import Asker
from leyden.reward.judges.desk import Desk
from leyden.reward.judges.endpoint import HttpEndpoint
from leyden.reward.judges.progress import verdicts_read
from leyden.reward.judges.store import RedisAnswerCache, RedisGroupStore, RedisJudgeQueue
from leyden.reward.judges.worker import JudgeWorker, Pace, Sources
from leyden.reward.ports import WaitingAttempts
from leyden.reward.settings import RewardSection, RewardSettings
from leyden.service import Runtime
from leyden.settings import RunFileError
from leyden.state import EvidenceStore


@dataclass(frozen=True)
class Bench:
    """The judges of a run."""

    desk: Desk
    worker: JudgeWorker
    queue: RedisJudgeQueue
    client: httpx.AsyncClient

    async def close(self) -> None:
        """Hand on what is in hand, and let the connections go."""
        await self.worker.release()
        await self.client.aclose()

    async def waiting(self) -> str | None:
        """One sentence while anything waits for a judge."""
        size = await self.queue.size()
        return f"{size} attempts or groups wait for a judge" if size else None


def make_bench(
    runtime: Runtime,
    section: RewardSection,
    knobs: RewardSettings,
    evidence: EvidenceStore,
    waiting: WaitingAttempts,
    clock: Clock,
    group: str,
) -> Bench | None:
    """The judges that the run file names; None when it names none. Raises `RunFileError` when a key is missing."""
    judges = section.judges
    if not judges:
        return None
    limits = httpx.Limits(max_connections=sum(judge.concurrency for judge in judges))
    client = httpx.AsyncClient(limits=limits)
    cache = RedisAnswerCache(runtime.redis, runtime.namespace("answers"), knobs.judge_cache_ttl_s)
    needed = section.settle == "live"
    askers = {j.name: Asker(j.name, HttpEndpoint(j, client, key_of(j, needed), clock), cache) for j in judges}
    queue = RedisJudgeQueue(runtime.redis, runtime.namespace("judging"))
    groups = RedisGroupStore(runtime.redis, runtime.namespace("ranking"))
    desk = Desk(judges, queue, groups, clock, knobs.judge_backlog)
    worker = JudgeWorker(
        judges,
        askers,
        desk,
        queue,
        Sources(evidence, groups, waiting),
        runtime.publisher,
        clock,
        partial(verdicts_read, runtime.kafka, runtime.settings.topic_prefix, group),
        Pace(knobs.judge_attempts, knobs.judge_lease_s),
    )
    return Bench(desk, worker, queue, client)


def key_of(judge: JudgeSettings, needed: bool) -> str | None:
    """The judge's key from the environment. A replay may have none: it asks nobody whose verdicts are recorded."""
    if judge.api_key_env is None:
        return None
    key = os.environ.get(judge.api_key_env)
    if not key and needed:
        raise RunFileError(f"judge {judge.name}: the environment variable {judge.api_key_env} holds no key")
    return key or None
