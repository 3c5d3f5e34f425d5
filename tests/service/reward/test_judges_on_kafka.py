"""reward as a process on real Kafka and real Redis with a real judge's endpoint beside it, killed in the middle."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.responses import Response

from leyden.events import JsonObject, RewardAssigned, RewardsCompleted, VerdictRecorded
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, VERDICTS
from leyden.ids import derive, rollout_id_of
from leyden.kafka.admin import ensure_topics
from leyden.kafka.delivered import Outgoing
from service.reward.test_ingest_reward_on_kafka import Stack
from service.reward.test_judge_endpoint import Reply, Server, chat, server
from unit.reward.reward_builders import a_call, a_score, an_end

pytestmark = pytest.mark.integration
__all__ = ["server"]
GROUPS = 12
RUN_FILE = """
reward:
  late_horizon_s: 3600
  judges:
    - {kind: rubric, name: quality, base_url: URL, model: m, concurrency: 2}
    - {kind: ranking, name: rank, base_url: URL, model: m, concurrency: 2}
"""


@pytest.fixture
async def stack(kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(kafka_servers, redis_server_url, topic_prefix, tmp_path)
    await ensure_topics(stack.kafka, topic_prefix)
    await stack.publisher.start()
    yield stack
    await stack.publisher.stop()


def rollouts() -> list[tuple[str, int]]:
    return [(rollout_id_of(f"task-{group}", n), group) for group in range(GROUPS) for n in range(2)]


async def write(stack: Stack) -> None:
    outgoing = []
    for n, (rollout, group) in enumerate(rollouts()):
        fields = {"rollout_id": rollout, "call_id": f"call-{rollout}", "event_id": f"event-{rollout}"}
        said: JsonObject = {"role": "assistant", "content": f"answer {n}"}
        call = a_call(1, 1, said, **fields)
        end = an_end([call], rollout_id=rollout, event_id=f"end-{rollout}", group_id=f"g{group}", group_size=2)
        outgoing += [Outgoing(MODEL_CALLS, rollout, call), Outgoing(ROLLOUTS, rollout, end)]
    await stack.publisher.publish_all(outgoing)


async def completed(stack: Stack, revision: int, at_least: int) -> None:
    async with asyncio.timeout(90):
        while True:
            events = [e for e in await stack.events(REWARDS) if isinstance(e, RewardsCompleted)]
            if len({e.rollout_id for e in events if e.revision == revision}) >= at_least:
                return
            await asyncio.sleep(0.3)


async def test_a_killed_service_asks_for_nothing_twice_and_every_rollout_has_its_verdicts(
    stack: Stack, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE.replace("URL", server.url))
    stack.environment["LEYDEN_REWARD_JUDGE_LEASE_S"] = "5"
    server.replies = [answer_ranked(server)]
    await write(stack)
    async with stack.running("reward", end_by=signal.SIGKILL):
        await completed(stack, 0, 3)
    async with stack.running("reward"):
        await completed(stack, 0, 2 * GROUPS)
        rollout, _ = rollouts()[0]
        late = a_score(9, 1.0).model_copy(update={"rollout_id": rollout, "trace_id": f"{rollout}0000"})
        await stack.publisher.publish_all([Outgoing(SPANS, rollout, late)])
        await completed(stack, 1, 1)
    verdicts = {e.event_id: e for e in await stack.events(VERDICTS) if isinstance(e, VerdictRecorded)}
    assert Counter(e.rule for e in verdicts.values()) == {"quality": 2 * GROUPS, "rank": 2 * GROUPS}
    assert [e.failure for e in verdicts.values() if e.failure] == []
    given = {e.event_id: e for e in await stack.events(REWARDS) if isinstance(e, RewardAssigned)}
    assert Counter(e.rule for e in given.values()) == {"quality": 2 * GROUPS, "rank": 2 * GROUPS, "emitted": 1}
    asked = Counter(derive(json.dumps(body, sort_keys=True)) for body in server.bodies)
    assert len(asked) == 3 * GROUPS
    assert sum(asked.values()) - len(asked) <= 4, "only what was on its way when it was killed is asked again"


def answer_ranked(server: Server) -> Reply:
    """Scores and rankings, after a moment."""

    async def answer() -> Response:
        body = server.bodies[-1]
        await asyncio.sleep(0.1)
        if "candidates" in json.dumps(body["response_format"]):
            entries = [{"candidate": n, "explanation": "", "score": n / 2} for n in (1, 2)]
            return chat(json.dumps({"candidates": entries}))
        return chat('{"explanation": "", "score": 0.5}')

    return answer
