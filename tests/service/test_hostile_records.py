"""No record that is valid by its schema stops a service, and none keeps the good ones beside it from being handled."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from credit_support import CreditLoop, CreditPublisher, delivered, late_rewards, memory_stores, one_rollout
from fakes import FakePublisher
from hostile_records import hostile
from leyden.clock import ManualClock
from leyden.credit.core.section import CreditSection, GroupSection
from leyden.credit.sweep import Sweeper as CreditSweeper
from leyden.credit.sweep import SweepSettings
from leyden.events import (
    Event,
    GroupCredited,
    KeyCreated,
    KeyRevoked,
    PolicyPromoted,
    PolicyServed,
    QueuePaused,
    RewardsCompleted,
    RolloutStarted,
    Task,
    TaskEnqueued,
    VerdictRecorded,
    VersionRegistered,
)
from leyden.events.codec import EVENTS_BY_TOPIC
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.routing import RoutingTable
from leyden.gateway.handlers.keys import KeysHandler
from leyden.gateway.handlers.models import ModelsHandler
from leyden.gateway.handlers.restoring import Restorer, RestoringTimes
from leyden.kafka import Delivered, Poison
from leyden.kafka.delivered import BatchHandler
from leyden.policy.core import Replica
from leyden.policy.handlers import PolicyAgent
from leyden.registry.handlers import RegistryHandlers
from leyden.reward.app import rulebook
from leyden.reward.settings import RewardSection
from registry_support import MemoryPromotions, checkpoint
from service.gateway.gateway_fakes import bench
from service.gateway.gateway_store_fake import MemoryStore
from service.reward.reward_fakes import World
from trainer_fakes import Disk, Process, group
from unit.policy.test_policy_agent import FakeEngine
from unit.reward.reward_builders import ROLLOUT, a_call, a_score, a_span, an_end, asking

TIME = datetime(2026, 1, 1, tzinfo=UTC)
ABOUT: dict[str, Any] = {"event_id": "e", "event_time": TIME, "producer": "test"}
SIGNS = ((0, 1.0), (1, -1.0))
Handle = Callable[[Sequence[Event]], Awaitable[None]]


async def without_poison(handler: BatchHandler, batch: Sequence[Delivered[Event]]) -> list[Delivered[Event]]:
    """Handle `batch` as the consumer's loop does: what is poison is set aside, and returned."""
    left = list(batch)
    while left:
        try:
            await handler(left)
            break
        except Poison as poison:
            left = [one for one in left if one not in poison.records]
    return [one for one in batch if one not in left]


async def credit(events: Sequence[Event]) -> None:
    """With a deadline and late rewards, so that every comparison of times is made."""
    section = CreditSection(group=GroupSection(deadline_s=60.0))
    clock = ManualClock(TIME)
    loop = CreditLoop(CreditPublisher(), memory_stores(clock), section, clock)
    good = one_rollout(5, 1.0, size=1, task="good", group_id="good", horizon_s=1000.0)
    await without_poison(loop.on_batch, delivered([*events, *good]))
    clock.set(TIME + timedelta(days=1))
    await CreditSweeper(
        grouping=loop.handlers.grouping,
        stores=loop.stores,
        group=section.group,
        reading=loop.reading,
        clock=clock,
        settings=SweepSettings(),
    ).sweep()
    await loop.read_back()
    assert [one.sequences for one in loop.publisher.of(GroupCredited) if one.group_id == "good"] == [1]


async def reward(events: Sequence[Event]) -> None:
    air = [{"rule": name} for name in ("tool_status", "schema_valid_arguments", "repeated_call", "parseable_output")]
    section = RewardSection.model_validate({"air": air})
    world = World(rulebook(section))
    good = "1e7de" + "a" * 23
    call = a_call(9, 1.0, rollout_id=good)
    end = an_end([call], rollout_id=good, event_id="good-end", reward=1.0)
    await world.deliver(*events, call, end)
    await world.feed_back()
    world.clock.set(world.clock.now() + timedelta(days=1))
    await world.sweeper.sweep()
    await world.feed_back()
    assert [one.rollout_id for one in world.log.of(RewardsCompleted) if one.rollout_id == good] == [good]


async def trainer(events: Sequence[Event]) -> None:
    process = Process(Disk(), groups_per_step=1, max_staleness=4)
    await process.handler.restore()
    records = [Delivered(event, "transitions.v1", "k", 0, at, "o") for at, event in enumerate(events)]
    await process.handler.on_batch([*records, *group("good", 100)])
    assert ["good"] in [names for names, _ in process.training.steps]


async def registry(events: Sequence[Event]) -> None:
    publisher = FakePublisher()
    handlers = RegistryHandlers(MemoryPromotions(), publisher, automatic=True)
    await handlers.on_batch(delivered([*events, checkpoint(7, policy="good")]))
    assert publisher.values, "what it publishes can be written"
    assert [one.version for one in publisher.of(PolicyPromoted) if one.policy == "good"] == [7]


async def policy(events: Sequence[Event]) -> None:
    publisher, engine = FakePublisher(), FakeEngine()
    agent = PolicyAgent(engine, publisher, ManualClock(TIME), Replica("p", "r", "http://engine"))
    await agent.on_models(delivered(events))
    await agent.converge()
    assert publisher.values


async def gateway(events: Sequence[Event]) -> None:
    table, clock = RoutingTable(), ManualClock(TIME)
    await ModelsHandler(table).on_models(delivered(events))
    served = PolicyServed(
        **ABOUT, policy="good", version=1, replica="r", endpoint="http://e", model="good", engine="vllm"
    )
    await ModelsHandler(table).on_models(delivered([served]))
    assert [state.live_version for state in table.policies() if state.policy == "good"] == [1]
    ring = KeyRing([], b"secret", clock.now)
    keys = KeysHandler(ring, FakePublisher(), clock, mint=lambda: pytest.fail("no key is made"))
    good = KeyCreated(**ABOUT, key_id="good", name="n", digest="00" * 32, scopes=["agent"])
    await without_poison(keys.on_keys, delivered([*events, good]))
    assert ring.find("good") is not None


async def restoring(events: Sequence[Event]) -> None:
    good = TaskEnqueued(**ABOUT, task=Task(task_id="good"), group_id="good", rollout_ids=["1e7de" + "c" * 23])
    log = [*events, good]

    class History:
        async def events(self, topic: str) -> AsyncGenerator[Event, None]:
            for event in log:
                if isinstance(event, EVENTS_BY_TOPIC[topic]):
                    yield event

    async with bench() as gate:
        vars(gate.store).update(vars(MemoryStore(whole=False)))
        times = RestoringTimes(interval_s=1.0, grace_s=0.0, ttl_s=86_400.0)
        assert await Restorer(gate.store, History(), gate.gateway.rollouts, ManualClock(TIME), times).restore_if_lost()
        await gate.gateway.tasks.on_tasks(delivered(log))
        found = await gate.store.find(good.rollout_ids[0])
        assert found is not None


def of_credit() -> list[Event]:
    events = one_rollout(0, 1.0, size=1, turns=1)
    return [*events, *late_rewards(events, 0.5)]


def of_reward() -> list[Event]:
    call = a_call(1, 1.0, asking(("t1", "add", '{"x": 1}')))
    verdict = VerdictRecorded(
        **ABOUT, rollout_id=ROLLOUT, attempt=0, rule="judge", settings_hash="0",
        judgements=[{"name": "n", "value": 0.5, "evidence": {"kind": "rollout", "id": ROLLOUT}}],
    )  # fmt: skip
    spans = [a_span(2, 2.0), a_score(3, 0.5), a_score(4, 0.25, "emitted")]
    return [call, *spans, verdict, an_end([call], span_count=3, reward=1.0)]


def of_models() -> list[Event]:
    promoted = PolicyPromoted(**ABOUT, policy="p", version=1, merged_weights="/w")
    served = PolicyServed(**ABOUT, policy="p", version=1, replica="r", endpoint="http://e", model="p", engine="vllm")
    lineage = {
        "parent_version": 0, "base_model": "b", "checkpoint_event": "c", "manifest_event": "m", "manifest_sha256": "0",
        "weights_sha256": "0", "settings_hash": "0",
    }  # fmt: skip
    return [VersionRegistered(**ABOUT, policy="p", version=1, lineage=lineage), promoted, served]


def of_keys() -> list[Event]:
    created = KeyCreated(
        **ABOUT, key_id="k", name="n", digest="0" * 64, scopes=["agent"], expires_at=TIME + timedelta(days=1)
    )
    return [created, KeyRevoked(**ABOUT, key_id="k", name="n")]


def of_rollouts() -> list[Event]:
    rollout = {"rollout_id": ROLLOUT, "attempt": 0}
    return [
        TaskEnqueued(**ABOUT, task=Task(task_id="t"), group_id="g", rollout_ids=[ROLLOUT]),
        QueuePaused(**ABOUT, project="p"),
        RolloutStarted(**ABOUT | rollout, task_id="t", group_id="g", group_size=1),
        an_end([], final=False, status="failed", retry_at=TIME + timedelta(seconds=5)),
    ]


JOINED: dict[str, tuple[Handle, list[Event]]] = {
    "credit": (credit, of_credit()),
    "reward": (reward, of_reward()),
    "trainer": (trainer, [one.event for one in group("g0", 0)]),
}
EACH: dict[str, tuple[Handle, list[Event]]] = {
    "registry": (registry, [checkpoint(1)]),
    "policy": (policy, of_models()),
    "gateway-models": (gateway, of_models()),
    "gateway-keys": (gateway, of_keys()),
    "gateway-restoring": (restoring, of_rollouts()),
}


@pytest.mark.parametrize("service", JOINED)
async def test_no_valid_record_stops_a_service_that_joins_events(service: str) -> None:
    """One run for each change: events with one id are one event, so changes cannot share a run."""
    handle, events = JOINED[service]
    tried, stopped = 0, {}
    for what, changed in hostile(events):
        tried += 1
        try:
            await handle(changed)
        except Exception as error:  # noqa: BLE001 - whatever it is, it would have stopped the service
            stopped[what] = f"{type(error).__name__}: {str(error)[:200]}"
    assert tried > 100
    assert not stopped, f"{len(stopped)} of {tried} valid records stop {service}"


@pytest.mark.parametrize("service", EACH)
async def test_no_valid_record_stops_a_service_that_takes_each_event_for_itself(service: str) -> None:
    """One run for all changes."""
    handle, events = EACH[service]
    changes = list(hostile(events))
    assert len(changes) > 100
    await handle([event for _, changed in changes for event in changed])


async def test_two_evaluations_whose_sum_is_no_number_fail_their_rule_alone() -> None:
    call = a_call(1, 1.0)
    await reward([call, a_score(3, 1e308), a_score(4, 1e308), an_end([call], span_count=2)])


@pytest.mark.parametrize("value", [1e9, 1e308])
async def test_rewards_of_both_signs_are_credited_or_left_out_and_credit_goes_on(value: float) -> None:
    rollouts = [one_rollout(index, value * (-1) ** index, size=130) for index in range(130)]
    await credit([event for events in rollouts for event in events])


@pytest.mark.parametrize("value", [1e9, 1e155, 1e308])
async def test_many_groups_of_huge_rewards_cost_themselves_only(value: float) -> None:
    groups = [
        [one_rollout(index, sign * value, size=2, task=f"task-{group}", group_id=f"g{group}") for index, sign in SIGNS]
        for group in range(130)
    ]
    await credit([event for rollouts in groups for events in rollouts for event in events])
