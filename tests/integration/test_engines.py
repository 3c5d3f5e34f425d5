"""One suite for both engines: what the loop relies on holds for vLLM and for ours."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine_support import Direct, EngineProcess, Said, chat_body, save_adapter, save_tiny_model, swap_body
from integration.behaviour_logprob_laws import BehaviourLogprobLaws
from integration.engine_api_laws import ModelApiLaws
from integration.engine_tool_laws import ToolCallLaws

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("default"),
]
TOLERANCE = 2e-3
IDLE = 0.1
"""An engine without work uses less of one core."""
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sets of weights for one architecture."""
    root = tmp_path_factory.mktemp("models")
    return [save_tiny_model(root / f"weights-{seed}", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def direct(models: list[Path]) -> dict[Path, Direct]:
    return {folder: Direct(folder) for folder in models}


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=needs_vllm)])
def engine(
    request: pytest.FixtureRequest, models: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    log = tmp_path_factory.mktemp("logs") / f"{request.param}.log"
    process = EngineProcess.start(request.param, models[0], log)
    yield process
    process.stop()


def live_direct(engine: EngineProcess, direct: dict[Path, Direct], version: str) -> Direct:
    return direct[engine.folders[version]]


def test_a_fresh_engine_serves_version_0(engine: EngineProcess) -> None:
    report = engine.version()
    assert report["version"] == "tiny@0"
    assert report["policy"] == report["model"] == "tiny"
    assert report["engine"] in {"vllm", "transformers"}


@pytest.mark.parametrize(("asked", "sampled"), [(0, 0), (1e-6, 0.01), (0.01, 0.01), (0.5, 0.5), (1.0, 1.0), (2, 2)])
def test_logprobs_are_those_of_the_distribution_that_was_sampled(
    engine: EngineProcess, direct: dict[Path, Direct], asked: float, sampled: float
) -> None:
    said = Said.of(engine.chat("Tom has 23 apples", temperature=asked, seed=3, max_tokens=40, ignore_eos=True))
    assert len(said.tokens) == len(said.logprobs)
    error = said.error_against(live_direct(engine, direct, said.version), sampled)
    assert error < TOLERANCE / min(sampled or 1.0, 1.0)


def test_greedy_tokens_are_the_likeliest(engine: EngineProcess) -> None:
    content = engine.chat("hello", top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert all(entry["logprob"] >= max(top["logprob"] for top in entry["top_logprobs"]) - 1e-4 for entry in content)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_whose_clients_have_all_left_stops_working(engine: EngineProcess, stream: bool) -> None:
    """Also for calls that wait in its queue: finished, this work would take several times as long as is waited."""
    body = chat_body("go on", max_tokens=60, ignore_eos=True, temperature=1.0, n=8, logprobs=False)
    async with httpx.AsyncClient(base_url=engine.url, timeout=300) as http:
        began = time.monotonic()
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        once_s = time.monotonic() - began
        asking = [http.post("/v1/chat/completions", json=body | {"stream": stream}) for _ in range(60)]
        tasks = [asyncio.ensure_future(one) for one in asking]
        await asyncio.sleep(min(once_s, 1.0))
        assert engine.cpu_share(0.5) > IDLE
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    deadline = time.monotonic() + 3 * once_s + 2.0
    while (share := engine.cpu_share(1.0)) > IDLE:
        assert time.monotonic() < deadline, f"still uses {share:.2f} of a core"


def test_a_streamed_answer_equals_the_plain_one(engine: EngineProcess) -> None:
    plain = Said.of(engine.chat("stream me", temperature=0))
    streamed, usage = stream(engine, chat_body("stream me", stream=True, stream_options={"include_usage": True}))
    assert streamed.version == plain.version
    assert (streamed.prompt, streamed.tokens, streamed.text) == (plain.prompt, plain.tokens, plain.text)
    assert streamed.logprobs == pytest.approx(plain.logprobs, abs=TOLERANCE)
    assert streamed.finish == plain.finish
    assert usage["completion_tokens"] == len(plain.tokens)
    assert usage["prompt_tokens"] == len(plain.prompt)


def stream(engine: EngineProcess, body: dict[str, Any]) -> tuple[Said, dict[str, int]]:
    said, usage = Said("", [], [], []), {}
    with httpx.stream("POST", f"{engine.url}/v1/chat/completions", json=body, timeout=60) as response:
        said.version = response.headers["x-leyden-policy-version"]
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            said.prompt = chunk.get("prompt_token_ids") or said.prompt
            for choice in chunk["choices"]:
                said.tokens += choice.get("token_ids") or []
                said.logprobs += [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or []]
                said.text += choice["delta"].get("content") or ""
                said.finish = choice["finish_reason"] or said.finish
    return said, usage


def test_a_seed_repeats_its_sample_and_choices_differ(engine: EngineProcess) -> None:
    first, second = (engine.chat("dice", temperature=1.0, seed=11, n=3) for _ in range(2))
    choices = [Said.of(first, index).tokens for index in range(3)]
    assert choices == [Said.of(second, index).tokens for index in range(3)]
    assert len({tuple(tokens) for tokens in choices}) == 3


def test_an_answer_ends_at_its_stop_string_which_is_not_shown(engine: EngineProcess) -> None:
    whole = Said.of(engine.chat("stop here", max_tokens=24, ignore_eos=True))
    at = next(index for index in range(3, len(whole.text)) if whole.text[index].isascii())
    cut = Said.of(engine.chat("stop here", max_tokens=24, ignore_eos=True, stop=[whole.text[at : at + 2]]))
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.find(whole.text[at : at + 2])]
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert whole.finish == "length"


def test_top_p_and_top_k_leave_only_the_likeliest(engine: EngineProcess) -> None:
    greedy = Said.of(engine.chat("narrow", temperature=0))
    assert Said.of(engine.chat("narrow", temperature=1.0, top_k=1)).tokens == greedy.tokens
    assert Said.of(engine.chat("narrow", temperature=1.0, top_p=1e-6)).tokens == greedy.tokens


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"messages": [{"role": "user", "content": "x" * 400}]}, 400),
        ({"max_tokens": 400}, 400),
        ({"messages": []}, 400),
        ({"messages": "no list"}, 400),
        ({"temperature": -1}, 400),
        ({"model": "somebody-else"}, 404),
    ],
)
def test_a_callers_mistake_is_a_4xx_in_openais_shape(
    engine: EngineProcess, change: dict[str, Any], status: int
) -> None:
    response = engine.chat("hi", **change)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]


async def test_the_openai_client_works_plain_and_streamed(engine: EngineProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
        plain = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0)
        chunks = await client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=5, temperature=0, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        models = await client.models.list()
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="tiny", messages=messages, max_tokens=9999)
    assert text == plain.choices[0].message.content
    assert [model.id for model in models.data] == ["tiny"]


class TestModelApis(ModelApiLaws):
    """Of the gateway, in front of each engine."""


class TestBehaviourLogprobs(BehaviourLogprobLaws):
    """From each engine through gateway, credit and trainer."""


class TestToolCalls(ToolCallLaws):
    """Through the gateway, from each engine."""


def test_new_weights_answer_the_same_prompt_anew(
    engine: EngineProcess, models: list[Path], direct: dict[Path, Direct]
) -> None:
    prompt = "a prompt long enough to fill several blocks of a prefix cache. " * 2
    before = Said.of(engine.chat(prompt))
    name = engine.swap(next(folder for folder in models if folder != engine.folders[before.version]))
    after = Said.of(engine.chat(prompt))
    assert after.version == name == engine.version()["version"]
    assert after.error_against(direct[engine.folders[name]]) < TOLERANCE
    assert after.error_against(live_direct(engine, direct, before.version)) > 0.05


def test_asking_for_the_live_version_changes_nothing(engine: EngineProcess, tmp_path: Path) -> None:
    live = engine.version()
    response = httpx.post(f"{engine.url}/leyden/v1/weights", json=swap_body(live["version"], tmp_path), timeout=30)
    assert response.status_code == 200
    assert response.json() == live


def test_unusable_weights_leave_the_old_ones_live(
    engine: EngineProcess, models: list[Path], direct: dict[Path, Direct], tmp_path: Path
) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in models[1].iterdir():
        (torn / file.name).write_bytes(file.read_bytes()[: -1000 if file.suffix == ".safetensors" else None])
    (tmp_path / "empty").mkdir()
    before = engine.version()
    for folder in (torn, tmp_path / "empty", tmp_path / "absent"):
        response = httpx.post(f"{engine.url}/leyden/v1/weights", json=swap_body("tiny@900", folder), timeout=60)
        assert response.status_code == 422, response.text
        assert response.json()["error"]["code"] == "unusable_weights"
    said = Said.of(engine.chat("still here"))
    assert engine.version() == before
    assert said.version == before["version"]
    assert said.error_against(live_direct(engine, direct, said.version)) < TOLERANCE


@pytest.mark.parametrize(
    "body",
    [{"version": "other@1", "path": "/"}, {"version": "tiny", "path": "/"}, {"version": "tiny@1"}, {"path": "/"}, []],
)
def test_a_malformed_swap_is_a_400(engine: EngineProcess, body: Any) -> None:
    assert httpx.post(f"{engine.url}/leyden/v1/weights", json=body, timeout=30).status_code == 400


async def test_under_load_every_answer_is_of_the_version_it_names(
    engine: EngineProcess, models: list[Path], direct: dict[Path, Direct]
) -> None:
    before = engine.version()["version"]
    first, second = [folder for folder in models if folder != engine.folders[before]]
    done = asyncio.Event()
    async with httpx.AsyncClient(timeout=120) as client:
        callers = [asyncio.create_task(keep_calling(client, engine.url, who, done)) for who in range(12)]
        await asyncio.sleep(1.0)
        names = [await asyncio.to_thread(engine.swap, first)]
        await asyncio.sleep(0.5)
        names.append(await asyncio.to_thread(engine.swap, second))
        await asyncio.sleep(0.5)
        done.set()
        answers = [said for said_by_one in await asyncio.gather(*callers) for said in said_by_one]
    assert {said.version for said in answers} == {before, *names}
    assert all(said.error_against(live_direct(engine, direct, said.version)) < TOLERANCE for said in answers)


async def keep_calling(client: httpx.AsyncClient, url: str, who: int, done: asyncio.Event) -> list[Said]:
    """Call until told to stop, and once more after that; lengths differ, so that some call is always in flight."""
    answers: list[Said] = []
    last = False
    while not last:
        last = done.is_set()
        body = chat_body(f"caller {who} has a question", temperature=1.0, max_tokens=6 + 3 * who, ignore_eos=True)
        answers.append(Said.of(await client.post(f"{url}/v1/chat/completions", json=body)))
    return answers


def test_a_client_that_leaves_does_not_hold_up_a_swap(engine: EngineProcess, models: list[Path]) -> None:
    body = chat_body("leave", max_tokens=150, ignore_eos=True, stream=True)
    with httpx.stream("POST", f"{engine.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    live = engine.folders[engine.version()["version"]]
    name = engine.swap(next(folder for folder in models if folder != live))
    assert Said.of(engine.chat("after")).version == name


@pytest.fixture(scope="module")
def adapters(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [save_adapter(models[0], root / f"adapter-{seed}", seed) for seed in range(2)]


@needs_vllm
def test_vllm_serves_adapters_side_by_side_under_immutable_names(
    models: list[Path], adapters: list[Path], tmp_path: Path
) -> None:
    engine = EngineProcess.start("vllm", models[0], tmp_path / "lora.log", "--lora-rank", "4")
    try:
        names = [engine.swap(adapter) for adapter in adapters]
        live = {"version": "tiny@2", "policy": "tiny", "engine": "vllm", "model": "tiny@2", "adapters": True}
        assert engine.version() == live
        for name, adapter in zip(names, adapters, strict=True):
            said = Said.of(engine.chat("which adapter?", model=name))
            assert said.version == name
            assert said.error_against(Direct(models[0], adapter)) < TOLERANCE
        base = Said.of(engine.chat("which adapter?"))
        assert base.version == "tiny@0"
        assert base.error_against(Direct(models[0])) < TOLERANCE
    finally:
        engine.stop()


def test_our_engine_merges_an_adapter_into_the_base(models: list[Path], adapters: list[Path], tmp_path: Path) -> None:
    engine = EngineProcess.start("transformers", models[0], tmp_path / "engine.log")
    try:
        for adapter in adapters:
            name = engine.swap(adapter)
            said = Said.of(engine.chat("which adapter?"))
            assert said.version == name
            assert said.error_against(Direct(models[0], adapter)) < TOLERANCE
    finally:
        engine.stop()


@needs_vllm
def test_vllm_with_logprobs_from_before_temperature_does_not_start(models: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "raw.log"
    with pytest.raises(AssertionError):
        EngineProcess.start("vllm", models[0], log, "--logprobs-mode", "raw_logprobs")
    assert "training needs --logprobs-mode processed_logprobs" in log.read_text()


def continuing(engine: EngineProcess, messages: list[dict[str, str]], wish: dict[str, Any]) -> httpx.Response:
    body = chat_body("", messages=messages, temperature=1.0, max_tokens=12, leyden_continue=wish)
    return httpx.post(
        f"{engine.url}/v1/chat/completions", json=body, headers={"x-leyden-continue": "1"}, timeout=60
    ).raise_for_status()


def test_a_conversation_is_one_exact_sequence_of_tokens(engine: EngineProcess) -> None:
    """Random bytes are rarely valid text, so their text tokenised again gives other tokens: every turn would fork."""
    messages, sent, drifted, wish = [{"role": "user", "content": "begin"}], [], 0, {}
    for turn in range(4):
        answer = continuing(engine, messages, wish)
        said = Said.of(answer)
        if turn:
            assert answer.headers["x-leyden-prompt"] == "continued"
            assert said.prompt[: len(sent)] == sent
            drifted += Said.of(continuing(engine, messages, {})).prompt[: len(sent)] != sent
        sent = said.prompt + said.tokens
        truncated = said.finish == "length"
        wish = {"token_ids": sent, "rendered": answer.headers["x-leyden-rendered"], "truncated": truncated}
        messages += [{"role": "assistant", "content": said.text}, {"role": "user", "content": f"go on {turn}"}]
    assert drifted > 0


def test_an_edited_history_is_rendered(engine: EngineProcess) -> None:
    messages = [{"role": "user", "content": "begin"}]
    first = continuing(engine, messages, {})
    said = Said.of(first)
    wish = {"token_ids": said.prompt + said.tokens, "rendered": first.headers["x-leyden-rendered"], "truncated": True}
    edited = [{"role": "user", "content": "began"}, {"role": "assistant", "content": said.text}]
    answer = continuing(engine, [*edited, {"role": "user", "content": "go on"}], wish)
    assert answer.headers["x-leyden-prompt"] == "rendered"
