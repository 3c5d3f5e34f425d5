import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from fakes import FakePublisher
from leyden.clock import ManualClock
from leyden.events import Event, PolicyPromoted, PolicyServed
from leyden.kafka.delivered import Delivered, Retry
from leyden.policy.adapters import HttpEngine, local_path
from leyden.policy.core import EngineReport, Replica
from leyden.policy.handlers import PolicyAgent
from leyden.policy.ports import EngineAwayError, EngineRefusedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeEngine:
    def __init__(self, adapters: bool = False) -> None:
        self.version = 0
        self.adapters = adapters
        self.loads: list[tuple[int, str]] = []
        self.failure: Exception | None = None
        self.away = False
        self.asked: asyncio.Queue[None] = asyncio.Queue()
        """One entry for each time it was asked for a report."""

    async def report(self) -> EngineReport:
        self.asked.put_nowait(None)
        if self.away:
            raise EngineAwayError("nobody answers")
        model = f"p@{self.version}" if self.adapters and self.version else "p"
        return EngineReport(policy="p", version=self.version, engine="fake", model=model, adapters=self.adapters)

    async def load(self, policy: str, version: int, folder: str) -> EngineReport:
        self.loads.append((version, folder))
        if self.failure:
            raise self.failure
        self.version = version
        return await self.report()


def served(publisher: FakePublisher) -> list[tuple[int, str]]:
    """Version and model of each announcement."""
    return [(event.version, event.model) for event in publisher.of(PolicyServed)]


def promoted(version: int, policy: str = "p", producer: str = "registry", **folders: Any) -> PolicyPromoted:
    folders = folders or {"merged_weights": f"/weights/{version}", "adapter": f"/adapters/{version}"}
    return PolicyPromoted(
        event_id=f"promotion-{policy}-{version}-{producer}",
        event_time=NOW,
        producer=producer,
        policy=policy,
        version=version,
        **folders,
    )


def batch(*events: Event) -> list[Delivered[Event]]:
    return [Delivered(event, "models.v1", "p", 0, at, f"models.v1/0/{at}") for at, event in enumerate(events)]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def agent(engine: FakeEngine, publisher: FakePublisher) -> PolicyAgent:
    return PolicyAgent(engine, publisher, ManualClock(NOW), Replica("p", "replica-1", "http://engine:8100"))


async def test_with_nothing_promoted_the_base_version_is_announced(
    agent: PolicyAgent, engine: FakeEngine, publisher: FakePublisher
) -> None:
    assert await agent.ready()
    await agent.converge()
    await agent.converge()
    assert served(publisher) == [(0, "p")]
    assert publisher.published[0].topic == "models.v1"
    assert publisher.published[0].key == "p/replica-1"
    assert engine.loads == []
    assert await agent.ready() is None


async def test_superseded_promotions_are_skipped(
    agent: PolicyAgent, engine: FakeEngine, publisher: FakePublisher
) -> None:
    await agent.on_models(batch(promoted(1), promoted(2), promoted(3), promoted(9, policy="another")))
    await agent.converge()
    assert engine.loads == [(3, "/weights/3")]
    assert served(publisher) == [(3, "p")]


async def test_a_redelivered_promotion_changes_nothing(
    agent: PolicyAgent, engine: FakeEngine, publisher: FakePublisher
) -> None:
    for _ in range(3):
        await agent.on_models(batch(promoted(1)))
        await agent.converge()
    assert engine.loads == [(1, "/weights/1")]
    assert served(publisher) == [(1, "p")]


async def test_a_rollback_to_an_older_version_is_followed_and_is_news(
    agent: PolicyAgent, engine: FakeEngine, publisher: FakePublisher
) -> None:
    for event in (promoted(1), promoted(2), promoted(1, producer="operator")):
        await agent.on_models(batch(event))
        await agent.converge()
    assert served(publisher) == [(1, "p"), (2, "p"), (1, "p")]
    assert len({outgoing.event.event_id for outgoing in publisher.published}) == 3


async def test_an_engine_that_restarted_is_brought_back(agent: PolicyAgent, engine: FakeEngine) -> None:
    await agent.on_models(batch(promoted(4)))
    await agent.converge()
    engine.version = 0
    await agent.converge()
    assert engine.version == 4
    assert engine.loads == [(4, "/weights/4")] * 2


async def test_an_engine_with_adapters_is_given_the_adapter(publisher: FakePublisher) -> None:
    engine = FakeEngine(adapters=True)
    agent = PolicyAgent(engine, publisher, ManualClock(NOW), Replica("p", "r", "http://engine"))
    await agent.on_models(batch(promoted(2)))
    await agent.converge()
    assert engine.loads == [(2, "/adapters/2")]
    assert served(publisher) == [(2, "p@2")]


async def test_refused_weights_are_not_tried_again_until_another_promotion(
    agent: PolicyAgent, engine: FakeEngine, publisher: FakePublisher
) -> None:
    engine.failure = EngineRefusedError("other architecture")
    await agent.on_models(batch(promoted(1)))
    await agent.converge()
    await agent.converge()
    assert engine.loads == [(1, "/weights/1")]
    assert served(publisher) == [(0, "p")]
    engine.failure = None
    await agent.on_models(batch(promoted(2)))
    await agent.converge()
    assert served(publisher) == [(0, "p"), (2, "p")]


async def test_an_engine_of_another_policy_is_left_alone(engine: FakeEngine, publisher: FakePublisher) -> None:
    agent = PolicyAgent(engine, publisher, ManualClock(NOW), Replica("mine", "r", "http://engine"))
    await agent.on_models(batch(promoted(1, policy="mine"), promoted(1)))
    with pytest.raises(EngineAwayError, match="serves policy 'p'"):
        await agent.converge()
    assert engine.loads == []
    assert served(publisher) == []


async def test_an_announcement_that_kafka_did_not_take_is_made_again(
    agent: PolicyAgent, publisher: FakePublisher
) -> None:
    publisher.failures = 1
    with pytest.raises(Retry):
        await agent.converge()
    await agent.converge()
    assert served(publisher) == [(0, "p")]


async def test_the_loop_survives_an_engine_that_is_away(engine: FakeEngine) -> None:
    written = asyncio.Event()
    publisher = FakePublisher(written.set)
    agent = PolicyAgent(engine, publisher, ManualClock(NOW), Replica("p", "replica-1", "http://engine:8100"))
    engine.away = True
    following = asyncio.create_task(agent.follow(probe_s=0.01))
    await agent.on_models(batch(promoted(1)))
    async with asyncio.timeout(20):
        for _ in range(3):
            await engine.asked.get()
        assert served(publisher) == []
        engine.away = False
        await written.wait()
    following.cancel()
    assert served(publisher) == [(1, "p")]


def http_engine(status: int, body: Any) -> HttpEngine:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json=body))
    return HttpEngine(httpx.AsyncClient(base_url="http://engine", transport=transport))


async def test_an_engines_answer_says_whether_to_ask_again() -> None:
    body = {"version": "p@3", "policy": "p", "engine": "vllm", "model": "p", "adapters": False}
    assert await http_engine(200, body).load("p", 3, "/w") == EngineReport(
        policy="p", version=3, engine="vllm", model="p", adapters=False
    )
    for status in (500, 502, 503):
        with pytest.raises(EngineAwayError):
            await http_engine(status, {}).load("p", 3, "/w")
    for status in (400, 403, 422):
        with pytest.raises(EngineRefusedError):
            await http_engine(status, {}).load("p", 3, "/w")
    with pytest.raises(EngineAwayError, match="not from a Leyden engine"):
        await http_engine(200, {"object": "list"}).report()


def test_weights_are_named_by_a_path_or_a_file_url() -> None:
    assert local_path("/w/3") == "/w/3"
    assert local_path("file:///w/a%20b") == "/w/a b"
    for other in ("", "s3://bucket/w"):
        with pytest.raises(EngineRefusedError):
            local_path(other)
