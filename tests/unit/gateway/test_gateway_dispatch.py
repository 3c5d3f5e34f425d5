"""Laws of the way to a server, for any outcome of any try: one record a call, bounded tries, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from itertools import count

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.clock import ManualClock
from leyden.events import ModelCallRecorded, PolicyServed
from leyden.gateway.core.agents import NOBODY
from leyden.gateway.core.faces import CHAT
from leyden.gateway.core.faces.openai import ChatFace
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Binding, JsonDict
from leyden.gateway.core.resilience import CircuitRules, RetryRules
from leyden.gateway.core.routing import Balance, Incoming, ModelName, Router, RoutingRules, RoutingTable, server_of
from leyden.gateway.core.upstreams import Timeouts, Upstreams
from leyden.gateway.handlers.admission import CallsInFlight, KeyLimiter, Limiter
from leyden.gateway.handlers.calls import ModelCalls
from leyden.gateway.handlers.ownership import Ownership
from leyden.gateway.handlers.servers import Dispatcher, EngineError, Servers
from leyden.gateway.ports import EngineBroke, EngineUnreachable
from waiting import turns

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VERSIONS = {"a": 3, "b": 3, "c": 2}
ANSWER = orjson.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "prompt_token_ids": [1],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop",
                     "token_ids": [7], "logprobs": {"content": [{"token": "x", "logprob": -0.5}]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
)  # fmt: skip


class Reply:
    """An answer; `closed` counts."""

    def __init__(self, status: int, version: str, retry_after: str | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"x-leyden-policy-version": version} | (
            {"retry-after": retry_after} if retry_after else {}
        )
        self.closed = 0

    async def read(self) -> bytes:
        assert not self.closed, "an answer that was let go of is not read"
        return ANSWER if self.status == 200 else b'{"error": {"message": "no"}}'

    async def payloads(self) -> AsyncIterator[bytes]:
        yield await self.read()

    def close(self) -> None:
        self.closed += 1


class Fleet:
    """Engines that do what a list says, one try after the other, and then answer."""

    def __init__(self, outcomes: list[str]) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []
        self.replies: list[Reply] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeouts: Timeouts) -> Reply:
        replica = url.split("/")[2]
        outcome = self.outcomes[len(self.asked)] if len(self.asked) < len(self.outcomes) else "ok"
        self.asked.append(replica)
        await asyncio.sleep(0)
        match outcome:
            case "unreachable":
                raise EngineUnreachable("no")
            case "broke" | "timeout":
                raise EngineBroke("no", timed_out=outcome == "timeout")
            case "hang":
                await asyncio.Event().wait()
        version = "policy@9" if outcome == "mismatch" else f"policy@{VERSIONS[replica]}"
        status, _, pause = outcome.partition(" after ")
        reply = Reply(int(status) if status.isdigit() else 200, version, pause or None)
        self.replies.append(reply)
        return reply


class Records:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[ModelCallRecorded] = []

    def must_be_up(self) -> None:
        pass

    async def record(self, call: ModelCallRecorded, *_: object) -> None:
        self.calls.append(call)

    def beside(self, recording: object) -> "asyncio.Task[None]":
        return asyncio.create_task(recording)  # type: ignore[arg-type]


class Written:
    """A caller who is told a whole answer."""

    started = False

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        self.started = True

    async def start(self, headers: Mapping[str, str]) -> None:
        raise AssertionError("nobody asked for a stream")

    async def write(self, event: bytes) -> None:
        raise AssertionError("nobody asked for a stream")


class World:
    """ModelCalls on a fleet."""

    def __init__(self, outcomes: list[str], tries: int = 4, failures: int = 100) -> None:
        self.fleet, self.records = Fleet(outcomes), Records()
        self.waits: list[float] = []
        table, number = RoutingTable(), count()
        for replica, version in VERSIONS.items():
            table.note_served(served(replica, version))
        self.servers = Servers(CircuitRules(failures, 60.0), lambda: 0.0)
        clock, ring = ManualClock(NOW), KeyRing([], b"", lambda: NOW)
        router = Router(table, Upstreams(), RoutingRules(Timeouts(1, None, 60), Balance.LEAST_LOADED, 4))
        rules = RetryRules(tries, 0.0001, 0.0001)
        self.calls = ModelCalls(
            ring=ring,
            limiter=Limiter("calls", 100, 429, 1.0),
            keys=KeyLimiter(ring, None, clock),  # type: ignore[arg-type]  # no key here has limits
            router=router,
            dispatcher=Dispatcher(
                engines=self.fleet,
                router=router,
                servers=self.servers,
                rules=rules,
                clock=clock,
                in_flight=CallsInFlight(),
                sleep=self.sleep,
            ),
            recorder=self.records,  # type: ignore[arg-type]
            store=None,  # type: ignore[arg-type]  # a call that belongs to no attempt asks no store
            clock=clock,
            new_id=lambda: f"call-{next(number)}",
            kept=None,  # type: ignore[arg-type]  # no call here is of an API that keeps responses
            ownership=Ownership(None),  # type: ignore[arg-type]  # nor does one without a project
        )

    async def sleep(self, seconds: float) -> None:
        """Take no time."""
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def call(self, model: str = "policy") -> str:
        asked = {"model": model}
        try:
            await self.calls.answer(Incoming(CHAT, asked, asked, Binding(), NOBODY), Written())
        except EngineError as failed:
            return str(failed.status)
        except Refusal as refusal:
            return refusal.code
        return "ok"


def served(replica: str, version: int) -> PolicyServed:
    return PolicyServed(
        event_id=replica, event_time=NOW, producer="policy", policy="policy", version=version, replica=replica,
        endpoint=f"http://{replica}", model="m", engine="vllm",
    )  # fmt: skip


OUTCOMES = ["ok", "unreachable", "broke", "timeout", "429", "503", "500", "400", "mismatch"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(OUTCOMES), max_size=8), st.integers(1, 5), st.integers(1, 4),
       st.sampled_from(["policy", "policy@3", "policy@2"]))  # fmt: skip
def test_whatever_happens_there_is_one_record_and_nothing_is_left_behind(
    outcomes: list[str], tries: int, failures: int, model: str
) -> None:
    async def run() -> None:
        world = World(outcomes, tries, failures)
        said = await world.call(model)
        assert 1 <= len(world.fleet.asked) <= tries
        assert len(world.records.calls) == 1
        assert (world.records.calls[0].error is None) is (said == "ok")
        assert world.servers.load == {}
        assert all(reply.closed for reply in world.fleet.replies)
        if model != "policy":
            assert {VERSIONS[replica] for replica in world.fleet.asked} == {ModelName.parse(model).version}
        if said == "ok":
            assert world.records.calls[0].policy_version in (9, VERSIONS[world.fleet.asked[-1]])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("outcomes", "said", "asked"),
    [
        (["unreachable"], "ok", "ab"),
        (["unreachable", "503"], "ok", "abc"),
        (["429", "429", "429"], "ok", "abca"),
        (["429", "429", "429", "429"], "429", "abca"),
        (["timeout"], "engine_timeout", "a"),
        (["broke"], "ok", "ab"),
        (["broke", "broke"], "engine_broke", "ab"),
        (["500"], "500", "a"),
    ],
)
async def test_who_is_asked_and_what_is_said(outcomes: list[str], said: str, asked: str) -> None:
    world = World(outcomes)
    assert await world.call() == said
    assert "".join(world.fleet.asked) == asked


async def test_a_server_that_wants_a_pause_gets_it_whatever_the_others_say() -> None:
    world = World(["503 after 0.2", "unreachable", "unreachable"])
    assert (await world.call(), "".join(world.fleet.asked)) == ("ok", "abca")
    [waited] = world.waits
    assert waited >= 0.2


async def test_a_server_that_wants_a_longer_pause_than_is_waited_for_is_left_out() -> None:
    world = World(["503 after 60", "unreachable", "unreachable"])
    assert (await world.call(), "".join(world.fleet.asked)) == ("ok", "abcb")
    world = World(["429 after 60", "429 after 61", "429 after 62"])
    assert (await world.call(), "".join(world.fleet.asked)) == ("429", "abc")


async def test_a_pinned_version_is_asked_for_elsewhere_and_then_given_up_without_a_wait() -> None:
    world = World(["mismatch", "mismatch"])
    assert await world.call("policy@3") == "policy_version_mismatch"
    assert "".join(world.fleet.asked) == "ab"


async def test_a_dead_replica_costs_a_few_calls_and_then_none() -> None:
    world = World(["unreachable", "ok"] * 3, failures=3)
    for _ in range(5):
        assert await world.call() == "ok"
    assert "".join(world.fleet.asked) == "abababbb"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["unreachable", "429"]), max_size=4), st.integers(0, 12))
def test_a_caller_who_leaves_at_any_moment_is_recorded_once_and_holds_nothing(before: list[str], steps: int) -> None:
    async def run() -> None:
        world = World([*before, "hang"], tries=9)
        calling = asyncio.create_task(world.call())
        for _ in range(steps):
            await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await turns()
        assert len(world.records.calls) == (1 if world.fleet.asked or steps else 0)
        assert all((call.error or "").startswith("cut_off") for call in world.records.calls)
        assert world.servers.load == {}
        assert all(reply.closed for reply in world.fleet.replies)

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1),
    st.dictionaries(st.sampled_from([f"policy/{r}" for r in "abcdef"]), st.integers(0, 5)),
    st.none() | st.integers(0, 4), st.none() | st.text(max_size=5),
)  # fmt: skip
def test_candidates_are_all_that_fit_the_kept_version_first_and_then_the_newest(
    fleet: dict[str, int], load: dict[str, int], kept: int | None, affinity: str | None
) -> None:
    table = RoutingTable()
    for replica, version in fleet.items():
        table.note_served(served(replica, version))
    order = table.candidates(ModelName("policy"), load, kept, affinity)
    assert {r.replica: r.version for r in order} == fleet
    assert len(order) == len(fleet)
    ranks = [(r.version != kept, -r.version) for r in order]
    assert ranks == sorted(ranks)
    if affinity is None:
        keys = [(r.version != kept, -r.version, load.get(server_of(r), 0), r.replica) for r in order]
        assert keys == sorted(keys)


class BrokenFace(ChatFace):
    """A face with a bug of ours in it."""

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        raise RuntimeError("a bug")


async def test_a_fault_of_ours_after_an_engine_was_asked_is_recorded_too() -> None:
    world, asked = World([]), {"model": "policy"}
    with pytest.raises(RuntimeError):
        await world.calls.answer(Incoming(BrokenFace(), asked, asked, Binding(), NOBODY), Written())
    await asyncio.sleep(0)
    assert [call.error for call in world.records.calls] == ["internal: RuntimeError('a bug')"]
    assert (world.servers.load, world.fleet.replies[0].closed) == ({}, 1)
