"""The registry on fakes, and the law of its store on the fake and on a real Redis."""

from collections.abc import AsyncIterator
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from credit_support import Crash, CreditPublisher, delivered
from leyden.events import Event
from leyden.registry.adapters import RedisPromotions
from leyden.registry.handlers import RegistryHandlers
from leyden.registry.ports import Promotions
from registry_support import MemoryPromotions, checkpoint


def keys(publisher: CreditPublisher) -> list[tuple[str, str, str]]:
    return [(one.topic, one.key, one.event.type) for one in publisher.published]


async def test_a_checkpoint_is_registered_and_then_promoted() -> None:
    publisher = CreditPublisher()
    await RegistryHandlers(MemoryPromotions(), publisher, automatic=True).on_batch(delivered([checkpoint(1)]))
    assert keys(publisher) == [
        ("models.v1", "p@1", "version-registered"),
        ("models.v1", "p@1/promoted", "policy-promoted"),
    ]


async def test_a_redelivered_checkpoint_promotes_nothing() -> None:
    publisher = CreditPublisher()
    registry = RegistryHandlers(MemoryPromotions(), publisher, automatic=True)
    old, new = delivered([checkpoint(1)]), delivered([checkpoint(2)])
    for batch in (old, new, old, new):
        await registry.on_batch(batch)
    promoted = [one.event.version for one in publisher.published if one.event.type == "policy-promoted"]  # type: ignore[attr-defined]
    assert promoted == [1, 2]
    assert len(set(publisher.values)) == 4


async def test_a_kill_before_the_promotion_is_remembered_promotes_the_same_event_again() -> None:
    promotions, dying, next_life = MemoryPromotions(), CreditPublisher(crash_at=2), CreditPublisher()
    batch = delivered([checkpoint(1)])
    with pytest.raises(Crash):
        await RegistryHandlers(promotions, dying, automatic=True).on_batch(batch)
    await RegistryHandlers(promotions, next_life, automatic=True).on_batch(batch)
    assert next_life.values == dying.values
    assert promotions.versions == {"p": 1}


async def test_manual_promotion_publishes_the_version_only() -> None:
    publisher = CreditPublisher()
    await RegistryHandlers(MemoryPromotions(), publisher, automatic=False).on_batch(delivered([checkpoint(1)]))
    assert keys(publisher) == [("models.v1", "p@1", "version-registered")]


async def test_an_empty_batch_publishes_nothing() -> None:
    publisher, none = CreditPublisher(), list[Event]()
    await RegistryHandlers(MemoryPromotions(), publisher, automatic=True).on_batch(delivered(none))
    assert publisher.published == []


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def promotions(request: pytest.FixtureRequest) -> AsyncIterator[Promotions]:
    if request.param == "memory":
        yield MemoryPromotions()
        return
    client = Redis.from_url(request.getfixturevalue("redis_server_url"))
    yield RedisPromotions(client, f"{token_hex(4)}:registry:promoted")
    await client.aclose()


async def test_the_promoted_version_only_rises(promotions: Promotions) -> None:
    assert await promotions.load({"p", "q"}) == {}
    for version in (2, 10, 9, 10):
        await promotions.raise_to("p", version)
    assert await promotions.load({"p", "q"}) == {"p": 10}
    assert await promotions.load(set()) == {}


async def test_an_experiments_versions_have_a_name_of_their_own() -> None:
    publisher = CreditPublisher()
    registry = RegistryHandlers(MemoryPromotions(), publisher, automatic=False, experiment="shaped")
    await registry.on_batch(delivered([checkpoint(1)]))
    assert keys(publisher) == [("models.v1", "p+shaped@1", "version-registered")]
