"""Which replica and which version answers a rollout's calls, and that a swap of weights loses none of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web

from leyden.events import PolicyServed, unpack_ints
from leyden.ids import AttemptRef, rollout_id_of
from leyden.kafka import Delivered
from service.gateway.gateway_engine_fake import ScriptedEngine, chunks, engine_server
from service.gateway.gateway_fakes import API_KEY, START, Bench, bench

HELLO: list[Any] = [{"role": "user", "content": "Say hi"}]
REFS = [AttemptRef(rollout_id_of("routing", n), 0) for n in range(24)]
VERSION = "x-leyden-policy-version"


@pytest.fixture
async def second() -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine()
    async with engine_server(engine):
        yield engine


def client(gate: Bench) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {API_KEY}"}
    return httpx.AsyncClient(base_url=gate.url, headers=headers, trust_env=False, timeout=20)


async def ask(http: httpx.AsyncClient, ref: AttemptRef, model: str = "policy", stream: bool = False) -> httpx.Response:
    body = {"model": model, "messages": HELLO, "stream": stream}
    return await http.post(f"/rollouts/{ref.trace_id}/v1/chat/completions", json=body)


async def test_a_rollout_keeps_its_first_version_while_it_is_live(second: ScriptedEngine) -> None:
    async with bench(sticky_version="rollout") as gate, client(gate) as http:
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@3"
        second.version = "policy@4"
        await gate.serve(4, "r1", second.url)
        assert (await ask(http, REFS[1])).headers[VERSION] == "policy@4"
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@3"
        assert (await ask(http, AttemptRef(REFS[0].rollout_id, 1))).headers[VERSION] == "policy@4"
        assert (await ask(http, REFS[0], "policy@4")).headers[VERSION] == "policy@4"
        assert gate.store.versions[REFS[0], "policy"] == 3


async def test_a_version_that_is_gone_is_followed_by_the_newest_which_is_kept_then(second: ScriptedEngine) -> None:
    async with bench(sticky_version="rollout") as gate, client(gate) as http:
        await ask(http, REFS[0])
        gate.engine.version = second.version = "policy@4"
        await gate.serve(4)
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@4"
        second.version = "policy@5"
        await gate.serve(5, "r1", second.url)
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@4"
        assert [call.policy_version for call in gate.log.calls] == [3, 4, 4]


async def test_what_a_rollout_keeps_to_is_what_answered_and_not_what_was_announced() -> None:
    async with bench(sticky_version="rollout") as gate, client(gate) as http:
        gate.engine.version = "policy@4"
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@4"
        assert gate.store.versions == {(REFS[0], "policy"): 4}


async def test_without_the_setting_the_newest_answers_and_nothing_is_kept(second: ScriptedEngine) -> None:
    async with bench() as gate, client(gate) as http:
        await ask(http, REFS[0])
        second.version = "policy@4"
        await gate.serve(4, "r1", second.url)
        assert (await ask(http, REFS[0])).headers[VERSION] == "policy@4"
        assert gate.store.versions == {}


async def test_with_redis_away_a_sticky_call_is_not_answered() -> None:
    async with bench(sticky_version="rollout") as gate, client(gate) as http:
        gate.store.fail_at["keep_version"] = 1
        assert (await ask(http, REFS[0])).status_code == 503
        assert gate.gateway.servers.load == {}


async def test_by_prefix_a_rollouts_calls_go_to_one_replica_and_rollouts_spread(second: ScriptedEngine) -> None:
    async with bench(balance="prefix") as gate, client(gate) as http:
        await gate.serve(3, "r1", second.url)
        for _ in range(2):
            for ref in REFS:
                assert (await ask(http, ref)).status_code == 200
        seen: Counter[str] = Counter()
        for engine in (gate.engine, second):
            assert len(engine.bodies) % 2 == 0
            seen[engine.url] = len(engine.bodies)
        assert min(seen.values()) >= 8


async def test_an_engine_that_forgot_the_adapter_is_found_out_and_another_replica_answers(
    second: ScriptedEngine,
) -> None:
    async with bench() as gate, client(gate) as http:
        await adapter(gate, "r0", gate.engine.url)
        await adapter(gate, "r1", second.url)
        gate.engine.version, second.version = "policy@0", "policy@4"
        for stream in (False, True):
            reply = await ask(http, REFS[0], stream=stream)
            assert (reply.status_code, reply.headers[VERSION]) == (200, "policy@4")
        second.version = "policy@0"
        reply = await ask(http, REFS[0])
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "policy_version_mismatch")
        assert [call.policy_version for call in gate.log.calls] == [4, 4, None]
        assert gate.gateway.servers.load == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_names_another_model_than_the_adapter_is_no_answer(stream: bool) -> None:
    async with bench() as gate, client(gate) as http:
        await adapter(gate, "r0", gate.engine.url)
        gate.engine.version = "policy@4"

        async def from_base(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            return await gate.engine.default(request, body | {"model": "base"})

        gate.engine.reply = from_base
        reply = await ask(http, REFS[0], stream=stream)
        assert "policy_version_mismatch" in reply.text
        assert "Hi" not in reply.text
        (call,) = gate.log.calls
        assert (call.policy_version, (call.error or "")[:23]) == (None, "policy_version_mismatch")


async def adapter(gate: Bench, replica: str, endpoint: str) -> None:
    """A replica reports that it serves version 4 under a name of its own."""
    served = PolicyServed(
        event_id=f"{replica}-4", event_time=START, producer="policy", policy="policy", version=4,
        replica=replica, endpoint=endpoint, model="policy@4", engine="vllm",
    )  # fmt: skip
    await gate.gateway.models.on_models([Delivered(served, "models.v1", f"policy/{replica}", 0, 0, "models.v1/0/0")])


class Swapping(ScriptedEngine):
    """A policy server whose weights can be swapped: requests in flight finish, new ones wait, as the version gate does.

    Every answer says in its first token which weights it was made with.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.reply = self.answer
        self._busy = 0
        self._idle = asyncio.Condition()
        self._swapping = False

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        async with self._idle:
            await self._idle.wait_for(lambda: not self._swapping)
            self._busy += 1
        try:
            self.version = f"policy@{self.number}"
            response = web.StreamResponse(headers={VERSION: self.version})
            await response.prepare(request)
            for chunk in chunks(body):
                for choice in chunk["choices"]:
                    choice["token_ids"] = [self.number] * len(choice["token_ids"])
                await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
                await asyncio.sleep(0.01)
            await response.write(b"data: [DONE]\n\n")
            return response
        finally:
            async with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    async def swap(self, number: int) -> None:
        async with self._idle:
            self._swapping = True
            await self._idle.wait_for(lambda: not self._busy)
            await asyncio.sleep(0.05)
            self.number, self._swapping = number, False
            self._idle.notify_all()


@pytest.mark.parametrize("sticky", ["off", "rollout"])
async def test_a_weights_swap_under_load_loses_no_call_and_every_version_is_recorded_as_it_was(sticky: str) -> None:
    one, two = Swapping(3), Swapping(3)
    async with engine_server(one), engine_server(two), bench(sticky_version=sticky) as gate, client(gate) as http:
        await gate.serve(3, "r0", one.url)
        await gate.serve(3, "r1", two.url)
        over = asyncio.Event()
        answers: list[httpx.Response] = []

        async def keep_asking(ref: AttemptRef) -> None:
            while not over.is_set():
                answers.append(await ask(http, ref, stream=True))

        asking = [asyncio.create_task(keep_asking(ref)) for ref in REFS[:8]]
        for number in (4, 5):
            for replica, engine in (("r0", one), ("r1", two)):
                await asyncio.sleep(0.1)
                await engine.swap(number)
                await asyncio.sleep(0.05)
                await gate.serve(number, replica, engine.url)
        await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*asking)
        await gate.gateway.recorder.drain()
        assert {(answer.status_code, "[DONE]" in answer.text) for answer in answers} == {(200, True)}
        assert len(gate.log.calls) == len(answers) > 20
        for call in gate.log.calls:
            ids = tokens(call.choices[0].token_ids)
            assert call.error is None
            assert set(ids) == {call.policy_version}, "the version that is recorded made every token"
        assert {call.policy_version for call in gate.log.calls} == {3, 4, 5}
        assert sum(len(ids) for ids in gate.store.calls.values()) == len(answers)


def tokens(packed: bytes) -> list[int]:
    return [int(token) for token in unpack_ints(packed)]
