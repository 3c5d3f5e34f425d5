import asyncio
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from leyden.policy.engines.gate import GateSettings, VersionGate
from leyden.policy.engines.swap import Commit, EngineBrokenError
from leyden.policy.engines.vllm_swap import VllmSwapper
from leyden.policy.engines.weights import UnusableWeightsError, WeightsFolder
from waiting import turns, until


class FakeEngine:
    """An engine whose weights are a word, and whose requests last until they are let go."""

    engine = "fake"

    def __init__(self, adapters: bool = False) -> None:
        self.weights = "base"
        self.held = asyncio.Event()
        self.held.set()
        self.started = 0
        self.prepared = False
        self.failure: Exception | None = None
        self.adapters = adapters
        self.loaded: list[str] = []
        self.mistake: str | None = None

    async def infer(self, request: Request) -> Response:
        body = await request.json()
        self.started += 1
        before = self.weights
        await self.held.wait()
        return JSONResponse({"weights": [before, self.weights], "model": body.get("model")})

    def misconfigured(self, app: Any) -> str | None:
        return self.mistake

    def serves_adapters(self, app: Any) -> bool:
        return self.adapters

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        self.loaded.append(name)

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        self.prepared = True
        if weights.adapter:
            raise UnusableWeightsError("no adapters here")

        async def commit() -> None:
            if self.failure:
                raise self.failure
            self.weights = name

        return commit


def gated(engine: FakeEngine, client: str = "127.0.0.1", **settings: Any) -> httpx.AsyncClient:
    routes = [
        Route("/v1/chat/completions", engine.infer, methods=["POST"]),
        Route("/health", lambda _: Response(), methods=["GET"]),
    ]
    gate = VersionGate(Starlette(routes=routes), engine, GateSettings(policy="p", **settings))
    transport = httpx.ASGITransport(gate, client=(client, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return tmp_path


async def infer(client: httpx.AsyncClient, model: str = "p") -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": model})


async def swap(client: httpx.AsyncClient, version: str, folder: Path, **headers: str) -> httpx.Response:
    body = {"version": version, "path": str(folder)}
    return await client.post("/leyden/v1/weights", json=body, headers=headers)


async def test_every_answer_names_its_version(folder: Path) -> None:
    async with gated(FakeEngine()) as client:
        assert (await infer(client)).headers["x-leyden-policy-version"] == "p@0"
        assert (await swap(client, "p@7", folder)).json()["version"] == "p@7"
        assert (await infer(client)).headers["x-leyden-policy-version"] == "p@7"


async def test_a_swap_waits_for_requests_in_flight_and_holds_back_new_ones(folder: Path) -> None:
    engine = FakeEngine()
    async with gated(engine) as client:
        engine.held.clear()
        early = asyncio.create_task(infer(client))
        await until(lambda: engine.started)
        swapping = asyncio.create_task(swap(client, "p@1", folder))
        await until(lambda: engine.prepared)
        late = asyncio.create_task(infer(client))
        await turns(200)
        assert engine.started == 1
        assert engine.weights == "base"
        assert not swapping.done()
        engine.held.set()
        assert (await swapping).status_code == 200
        assert (await early).json()["weights"] == ["base", "base"]
        assert (await early).headers["x-leyden-policy-version"] == "p@0"
        assert (await late).json()["weights"] == ["p@1", "p@1"]
        assert (await late).headers["x-leyden-policy-version"] == "p@1"


async def test_a_swap_that_cannot_drain_gives_up_and_lets_requests_on(folder: Path) -> None:
    engine = FakeEngine()
    async with gated(engine, drain_s=0.05) as client:
        engine.held.clear()
        early = asyncio.create_task(infer(client))
        await until(lambda: engine.started)
        response = await swap(client, "p@1", folder)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "drain_timeout"
        engine.held.set()
        assert (await early).status_code == 200
        assert (await infer(client)).headers["x-leyden-policy-version"] == "p@0"


async def test_a_failed_swap_leaves_the_old_version_live(folder: Path) -> None:
    engine = FakeEngine()
    engine.failure = RuntimeError("disk on fire")
    async with gated(engine) as client:
        response = await swap(client, "p@1", folder)
        assert response.status_code == 500
        assert "disk on fire" in response.json()["error"]["message"]
        assert (await infer(client)).headers["x-leyden-policy-version"] == "p@0"


async def test_a_broken_engine_answers_nothing_more(folder: Path) -> None:
    engine = FakeEngine()
    engine.failure = EngineBrokenError("half loaded")
    async with gated(engine) as client:
        assert (await swap(client, "p@1", folder)).status_code == 500
        assert (await infer(client)).status_code == 503
        assert (await client.get("/health")).status_code == 503
        assert (await swap(client, "p@1", folder)).status_code == 503


async def test_the_live_version_again_is_a_no_op(folder: Path) -> None:
    engine = FakeEngine()
    async with gated(engine) as client:
        await swap(client, "p@1", folder)
        engine.failure = RuntimeError("must not be asked")
        assert (await swap(client, "p@1", Path("/nowhere"))).status_code == 200


async def test_concurrent_swaps_come_one_after_the_other(folder: Path) -> None:
    engine = FakeEngine()
    async with gated(engine) as client:
        answers = await asyncio.gather(*(swap(client, f"p@{n}", folder) for n in range(1, 6)))
        assert [answer.status_code for answer in answers] == [200] * 5
        live = (await client.get("/leyden/v1/weights")).json()["version"]
        assert engine.weights == live


@pytest.mark.parametrize("path", ["/nowhere", "/"])
async def test_a_folder_without_weights_is_a_422(path: str) -> None:
    async with gated(FakeEngine()) as client:
        assert (await swap(client, "p@1", Path(path))).status_code == 422


async def test_without_a_token_only_this_machine_may_swap(folder: Path) -> None:
    async with gated(FakeEngine(), client="10.0.0.7") as client:
        assert (await swap(client, "p@1", folder)).status_code == 403
        assert (await client.get("/leyden/v1/weights")).status_code == 200


async def test_with_a_token_whoever_shows_it_may_swap(folder: Path) -> None:
    async with gated(FakeEngine(), client="10.0.0.7", token="s3cret") as client:
        assert (await swap(client, "p@1", folder, authorization="Bearer wrong")).status_code == 403
        assert (await swap(client, "p@1", folder, authorization="Bearer s3cret")).status_code == 200


async def test_adapters_are_served_side_by_side_by_the_model_that_a_request_names(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    engine = FakeEngine(adapters=True)
    async with gated(engine) as client:
        engine.held.clear()
        early = asyncio.create_task(infer(client))
        await until(lambda: engine.started)
        report = (await swap(client, "p@1", tmp_path)).json()
        assert (report["version"], report["model"], report["adapters"]) == ("p@1", "p@1", True)
        engine.held.set()
        assert (await early).headers["x-leyden-policy-version"] == "p@0"
        named = await infer(client, "p@1")
        assert named.headers["x-leyden-policy-version"] == named.json()["model"] == "p@1"
        assert (await infer(client)).headers["x-leyden-policy-version"] == "p@0"
        back = (await swap(client, "p@0", tmp_path)).json()
        assert (back["version"], back["model"]) == ("p@0", "p")
        assert engine.loaded == ["p@1"]


@pytest.mark.parametrize("mistake", [None, "started with the wrong --logprobs-mode"])
async def test_an_engine_whose_logprobs_mislead_the_trainer_does_not_start(mistake: str | None) -> None:
    engine = FakeEngine()
    engine.mistake = mistake
    gate = VersionGate(Starlette(), engine, GateSettings(policy="p"))
    answers: list[Any] = []
    asked: list[Any] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return asked.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    await gate({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    failed: Any = {"type": "lifespan.startup.failed", "message": mistake}
    assert answers[0] == ({"type": "lifespan.startup.complete"} if mistake is None else failed)


@pytest.mark.parametrize("mode", ["raw_logprobs", "raw_logits", "processed_logits", "processed_logprobs", None])
def test_vllm_must_tell_logprobs_of_what_it_samples_from(mode: str | None) -> None:
    model_config = SimpleNamespace(logprobs_mode=mode) if mode else SimpleNamespace()
    engine_client = SimpleNamespace(vllm_config=SimpleNamespace(model_config=model_config))
    found = VllmSwapper().misconfigured(SimpleNamespace(state=SimpleNamespace(engine_client=engine_client)))
    assert (found is None) == (mode == "processed_logprobs")
