"""Builds the objects needed for judging; part of the composition root."""

import os
from dataclasses import dataclass
from functools import partial

import httpx

from leyden.clock import Clock
from leyden.reward.core.judging import JudgeSettings
from leyden.reward.judges.ask import Asker
from leyden.reward.judges.endpoint import HttpEndpoint
from leyden.reward.judges.progress import verdicts_read
from leyden.reward.judges.store import RedisAnswerCache, RedisGroupStore, RedisJudgeQueue
from leyden.reward.judges.submit import QueueingSubmitter
from leyden.reward.judges.worker import JudgeWorker, Pace, Sources
from leyden.reward.ports import WaitingAttempts
from leyden.reward.settings import RewardSection, RewardSettings
from leyden.service import Runtime
from leyden.settings import RunFileError
from leyden.state import EvidenceStore


@dataclass(frozen=True)
class Judging:
    """Everything needed for judging: submitter, worker, queue, HTTP client."""

    submitter: QueueingSubmitter
    worker: JudgeWorker
    queue: RedisJudgeQueue
    client: httpx.AsyncClient

    async def close(self) -> None:
        """Release claimed jobs and close connections."""
        await self.worker.release()
        await self.client.aclose()

    async def waiting(self) -> str | None:
        """One sentence if jobs are waiting for a judge, else None."""
        size = await self.queue.size()
        return f"{size} attempts or groups wait for a judge" if size else None


def build_judging(
    *,
    runtime: Runtime,
    section: RewardSection,
    knobs: RewardSettings,
    evidence: EvidenceStore,
    waiting: WaitingAttempts,
    clock: Clock,
    group: str,
) -> Judging | None:
    """Build judging for the judges of the run file; None if it has none. Raises `RunFileError` if a key is missing."""
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
    submitter = QueueingSubmitter(judges, queue, groups, clock, knobs.judge_backlog)
    worker = JudgeWorker(
        judges=judges,
        askers=askers,
        submitter=submitter,
        queue=queue,
        sources=Sources(evidence, groups, waiting),
        publisher=runtime.publisher,
        clock=clock,
        verdicts_read=partial(verdicts_read, runtime.kafka, runtime.settings.topic_prefix, group),
        pace=Pace(knobs.judge_attempts, knobs.judge_lease_s),
    )
    return Judging(submitter, worker, queue, client)


def key_of(judge: JudgeSettings, needed: bool) -> str | None:
    """The judge's API key from the environment. A replay may lack it, because it uses recorded verdicts."""
    if judge.api_key_env is None:
        return None
    key = os.environ.get(judge.api_key_env)
    if not key and needed:
        raise RunFileError(f"judge {judge.name}: environment variable {judge.api_key_env} is not set")
    return key or None
