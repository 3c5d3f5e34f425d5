"""Arbitrary JSON at every model API: whatever a body holds, the caller's mistake is never the gateway's fault."""

import json
import os
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from operator import getitem
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.gateway.gateway_fakes import API_KEY, Bench
from service.gateway.gateway_fuzz import fuzzed_gateway

EXAMPLES = int(os.environ.get("LEYDEN_FUZZ_EXAMPLES", "6")) * 10
TOOL = {"type": "function", "name": "f", "function": {"name": "f"}, "input_schema": {"type": "object"}}
CHAT_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ],
        "tools": [TOOL], "tool_choice": "auto", "n": 1, "stop": ["x"], "max_completion_tokens": 4, "seed": 1,
        "response_format": {"type": "json_object"}, "temperature": 1, "top_p": 0.9, "top_k": 3,
        "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1, "metadata": {},
    },
    "/v1/completions": {"prompt": [1, 2], "n": 1, "logprobs": 1, "echo": False, "max_tokens": 4, "suffix": None},
    "/v1/responses": {
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "x"}]},
        ],
        "instructions": "x", "tools": [TOOL], "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}, "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"], "top_logprobs": 1, "metadata": {}, "max_output_tokens": 4,
    },
    "/v1/messages": {
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "x"}]}],
            },
        ],
        "max_tokens": 4, "tools": [TOOL], "tool_choice": {"type": "auto"}, "stop_sequences": ["x"], "top_k": 2,
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"},
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]},
    "/v1/embeddings": {"input": ["a"], "encoding_format": "float", "dimensions": 3},
}  # fmt: skip
"""A body of each API in which most of what it may hold is there, to have parts of it replaced."""

ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e308,
        10**30,
        -(10**400),
        float("nan"),
        float("inf"),
        "",
        "\ud800",
        "\x00",
        [],
        {},
        [[]],
        [None],
    ]
)
VALUES = st.recursive(
    ODD | st.text(max_size=4) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SHORT = httpx.Limits(keepalive_expiry=1)
"""An idle connection is given up before the server does so, which would race with the next request."""
PLACES = st.lists(st.integers(0, 30), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def gate() -> Iterator[Bench]:
    with fuzzed_gateway() as made:
        yield made


@pytest.fixture(scope="module")
def http(gate: Bench) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
    with httpx.Client(base_url=gate.url, headers=headers, trust_env=False, timeout=20, limits=SHORT) as client:
        yield client


@pytest.mark.parametrize("route", VALID)
def test_no_body_is_a_fault_of_the_gateway(http: httpx.Client, route: str) -> None:
    @given(edits=st.lists(st.tuples(PLACES, VALUES), max_size=3), streamed=st.booleans(), model=ODD | st.just("policy"))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(edits: list[tuple[list[int], Any]], streamed: bool, model: Any) -> None:
        body = json.loads(json.dumps(VALID[route])) | {
            "model": model if len(edits) > 2 else "policy",
            "stream": streamed,
        }
        for place, value in edits:
            put(body, place, deepcopy(value))
        send(http, route, json.dumps(body).encode())

    check()


@pytest.mark.parametrize("route", VALID)
def test_no_single_odd_value_is_a_fault(http: httpx.Client, route: str) -> None:
    for place in places(VALID[route]):
        for value in ([], {}, "", 3, True, None, [None], {"type": []}, "\ud800", 10**400):
            body = deepcopy(VALID[route]) | {"model": "policy"}
            *way, last = place
            reduce(getitem, way, body)[last] = value
            send(http, route, json.dumps(body).encode())


@pytest.mark.parametrize("route", VALID)
@pytest.mark.parametrize("depth", [99, 101, 5000])
def test_a_deep_body_is_a_400_or_served(http: httpx.Client, route: str, depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        nested = opening * depth + ("1" if opening != "[" else "") + closing * depth
        for name in VALID[route]:
            body = VALID[route] | {"model": "policy"}
            text = json.dumps(body | {name: "HERE"}).replace('"HERE"', nested)
            send(http, route, text.encode())


def places(body: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a body."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places(value))


def put(body: Any, place: list[int], value: Any) -> None:
    """Replace what is at a place, each number choosing among what is there; the last step may be anywhere below."""
    for step, number in enumerate(place):
        keys = list(body) if isinstance(body, dict) else list(range(len(body)))
        if not keys:
            return
        key = keys[number % len(keys)]
        if step == len(place) - 1 or not isinstance(body[key], dict | list) or not body[key]:
            body[key] = value
            return
        body = body[key]


def send(http: httpx.Client, route: str, body: bytes) -> None:
    answer = http.post(route, content=body)
    shown = f"{answer.status_code} {answer.text[:400]}\n{body[:1000]!r}"
    assert answer.status_code < 500, shown
    if answer.status_code == 200:
        assert "could not bring the stream" not in answer.text, shown
        assert "send it again" not in answer.text, shown
    else:
        assert answer.json()["error"]["message"], shown
