import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from leyden.engine_face import CONTINUE_FIELD as FIELD
from leyden.policy.engines.continuing import EarlierCall, Rendering, join, prompt_of, take_continuation
from leyden.policy.engines.gate import GateSettings, VersionGate
from leyden.policy.engines.swap import Commit
from leyden.policy.engines.weights import WeightsFolder

END, NEWLINE, ASSISTANT, TOOL = 0, 1, 2, 3
ENDS = frozenset({END})
words = st.lists(st.integers(10, 99), max_size=8)


def opened(history: Sequence[int]) -> list[int]:
    """A prompt: history, and the opening of the assistant's turn."""
    return [*history, ASSISTANT, NEWLINE]


@given(history=words, sampled=words, again=words, new=words)
def test_sampled_tokens_stay_whatever_they_tokenise_to(
    history: list[int], sampled: list[int], again: list[int], new: list[int]
) -> None:
    first = opened(history)
    earlier = EarlierCall([*first, *sampled, END], Rendering.of(first))
    second = opened([*first, *again, END, NEWLINE, TOOL, *new, END, NEWLINE])
    assert join(second, earlier, ENDS) == opened([*first, *sampled, END, NEWLINE, TOOL, *new, END, NEWLINE])


def test_a_third_call_extends_the_second_one_exactly() -> None:
    first = opened([10])
    one = EarlierCall([*first, 20, 21, END], Rendering.of(first))
    second = opened([*first, 22, END, NEWLINE, TOOL, 30, END, NEWLINE])
    sent = join(second, one, ENDS)
    assert sent is not None
    two = EarlierCall([*sent, 40, END], Rendering.of(second))
    third = opened([*second, 41, 42, END, NEWLINE, TOOL, 50, END, NEWLINE])
    assert join(third, two, ENDS) == opened([*sent, 40, END, NEWLINE, TOOL, 50, END, NEWLINE])


def test_a_truncated_answer_gets_the_end_of_turn_that_the_template_writes() -> None:
    first = opened([10])
    earlier = EarlierCall([*first, 20, 21], Rendering.of(first), truncated=True)
    second = opened([*first, 22, END, NEWLINE, TOOL, 30, END, NEWLINE])
    assert join(second, earlier, ENDS) == opened([*first, 20, 21, END, NEWLINE, TOOL, 30, END, NEWLINE])


@pytest.mark.parametrize(
    ("earlier", "rendered"),
    [
        (EarlierCall([10, 20, END], Rendering.of([10])), [11, 20, END, 30]),
        (EarlierCall([10, 20, END], Rendering.of([10, 11, 12, 13, 14])), [10, 20, END, 30]),
        (EarlierCall([10, 20, END], Rendering.of([10])), [10, 20, 30]),
        (EarlierCall([10, 20], Rendering.of([10])), [10, 20, END, 30]),
    ],
    ids=["history rewritten", "history cut", "no end of turn", "stopped by a text that is not shown"],
)
def test_another_history_is_not_continued(earlier: EarlierCall, rendered: list[int]) -> None:
    assert join(rendered, earlier, ENDS) is None


@pytest.mark.parametrize(
    "wish",
    [
        None,
        [],
        {"token_ids": [1]},
        {"token_ids": [-1], "rendered": "1:a"},
        {"token_ids": [True], "rendered": "1:a"},
        {"token_ids": [2**31], "rendered": "1:a"},
        {"token_ids": [1], "rendered": "a"},
        {"token_ids": [1], "rendered": "1:a", "truncated": 1},
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(wish: object) -> None:
    with pytest.raises(ValueError, match=r"leyden_continue|not <count>"):
        take_continuation(json.dumps({"model": "p", FIELD: wish}).encode())


class NoAdapters:
    """Weights that nobody changes."""

    engine = "fake"

    def misconfigured(self, app: Any) -> str | None:
        return None

    def serves_adapters(self, app: Any) -> bool:
        return False

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        raise NotImplementedError

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        raise NotImplementedError


async def _render(request: Request) -> JSONResponse:
    """An engine whose prompts are rendered to its message's numbers."""
    body = await request.json()
    assert FIELD not in body
    return JSONResponse({"prompt_token_ids": list(prompt_of(body["messages"], ENDS))})


@pytest.fixture
def engine() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/v1/chat/completions", _render, methods=["POST"])])
    gate = VersionGate(app, NoAdapters(), GateSettings(policy="p"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://engine")


async def ask(engine: httpx.AsyncClient, messages: list[int], wish: object) -> httpx.Response:
    body = {"model": "p", "messages": messages, FIELD: wish}
    return await engine.post("/v1/chat/completions", json=body, headers={"x-leyden-continue": "1"})


async def test_the_gate_says_what_became_of_the_wish(engine: httpx.AsyncClient) -> None:
    async with engine:
        first = await ask(engine, opened([10]), {})
        assert first.headers["x-leyden-prompt"] == "rendered"
        wish = {"token_ids": [*opened([10]), 20, END], "rendered": first.headers["x-leyden-rendered"]}
        second = await ask(engine, opened([*opened([10]), 21, 22, END, NEWLINE]), wish)
        assert second.headers["x-leyden-prompt"] == "continued"
        assert second.json()["prompt_token_ids"] == opened([*opened([10]), 20, END, NEWLINE])
        other = await ask(engine, opened([11, 12, 13, END]), wish)
        assert other.headers["x-leyden-prompt"] == "rendered"
        assert other.json()["prompt_token_ids"] == opened([11, 12, 13, END])


async def test_a_request_without_a_wish_is_left_alone(engine: httpx.AsyncClient) -> None:
    async with engine:
        answer = await engine.post("/v1/chat/completions", json={"model": "p", "messages": [1, 2]})
    assert answer.json() == {"prompt_token_ids": [1, 2]}
    assert "x-leyden-prompt" not in answer.headers


async def test_a_wish_that_cannot_be_read_is_a_400(engine: httpx.AsyncClient) -> None:
    async with engine:
        answer = await ask(engine, [1], "nonsense")
    assert answer.status_code == 400
    assert FIELD in answer.json()["error"]["message"]
