"""Which class of failure an exception is: real clients' exceptions, and others by the names of their classes."""

import errno
import json
from types import new_class
from typing import Any

import httpx
import openai
import pydantic
import pytest

from leyden.client.errors import GatewayUnavailableError
from leyden.failures import MAX_TRACEBACK, classify, is_context_overflow

CALL = httpx.Request("POST", "http://gateway/rollouts/1e7de0000/v1/chat/completions")
WEATHER = httpx.Request("GET", "http://weather/v1/today")


def named(module: str, name: str, *bases: type[BaseException], **fields: Any) -> BaseException:
    kind = new_class(name, bases or (Exception,), {}, lambda body: body.update(__module__=module))
    error = kind("it went wrong")
    vars(error).update(fields)
    return error


def answered(status: int, message: str = "no", code: str | None = None) -> openai.APIStatusError:
    response = httpx.Response(status, request=CALL)
    kinds: dict[int, type[openai.APIStatusError]] = {
        400: openai.BadRequestError, 401: openai.AuthenticationError, 429: openai.RateLimitError
    }  # fmt: skip
    kind = kinds.get(status, openai.InternalServerError if status >= 500 else openai.APIStatusError)
    return kind(message, response=response, body={"code": code})


def not_json() -> BaseException:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")
    return raised.value


def not_of_the_form() -> BaseException:
    with pytest.raises(pydantic.ValidationError) as raised:
        pydantic.TypeAdapter(int).validate_python("x")
    return raised.value


def http_status(request: httpx.Request, status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
CASES: list[tuple[BaseException, str]] = [
    (ValueError("x"), "agent_exception"),
    (TimeoutError("the agent's own"), "agent_exception"),
    (openai.APIConnectionError(request=CALL), "infrastructure"),
    (openai.APITimeoutError(CALL), "infrastructure"),
    (answered(500), "model_error"),
    (answered(503), "infrastructure"),
    (answered(429), "infrastructure"),
    (answered(401), "infrastructure"),
    (answered(400), "model_error"),
    (answered(400, LONG), "context_overflow"),
    (answered(400, code="context_length_exceeded"), "context_overflow"),
    (named("anthropic", "BadRequestError", type(named("anthropic", "APIError")), status_code=400), "model_error"),
    (named("litellm.exceptions", "ContextWindowExceededError", openai.APIError.__mro__[1]), "context_overflow"),
    (named("weather.api", "APIError"), "agent_exception"),
    (httpx.ConnectError("refused", request=CALL), "infrastructure"),
    (http_status(CALL, 502), "infrastructure"),
    (http_status(CALL, 422), "model_error"),
    (http_status(WEATHER, 502), "agent_exception"),
    (httpx.ConnectError("no request known"), "agent_exception"),
    (not_json(), "malformed_output"),
    (not_of_the_form(), "malformed_output"),
    (named("langchain_core.exceptions", "OutputParserException", ValueError), "malformed_output"),
    (named("langchain_core.tools.base", "ToolException"), "tool_error"),
    (named("mcp.shared.exceptions", "McpError"), "tool_error"),
    (MemoryError(), "infrastructure"),
    (OSError(errno.ENOSPC, "no space left"), "infrastructure"),
    (FileNotFoundError(errno.ENOENT, "no file"), "agent_exception"),
    (GatewayUnavailableError("away"), "infrastructure"),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_an_exception_has_its_class(error: BaseException, expected: str) -> None:
    assert classify(error).failure_class == expected


@pytest.mark.parametrize(("error", "expected"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_cause_and_a_member_of_a_group_are_seen(error: BaseException, expected: str) -> None:
    wrapped = RuntimeError("the agent could not go on")
    wrapped.__cause__ = error
    assert classify(wrapped).failure_class == expected
    assert classify(BaseExceptionGroup("tasks", [error])).failure_class == expected


def test_the_outermost_class_wins() -> None:
    tool = named("agent.tools", "ToolError", tool_name="search")
    tool.__cause__ = answered(500)
    found = classify(tool)
    assert (found.failure_class, found.evidence) == (
        "tool_error", {"error_type": "agent.tools.ToolError", "tool": "search"}
    )  # fmt: skip


def handled_badly() -> None:
    try:
        json.loads("{")
    except json.JSONDecodeError:
        {}["fallback"]


def test_an_error_that_was_being_handled_is_no_cause() -> None:
    with pytest.raises(KeyError) as raised:
        handled_badly()
    assert classify(raised.value).failure_class == "agent_exception"


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first).failure_class == "agent_exception"


def test_the_evidence_is_the_end_of_the_traceback() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("the end " + "x" * 10_000)
        deep(n - 1)

    with pytest.raises(ValueError, match="the end") as raised:
        deep(50)
    tail = classify(raised.value).evidence["traceback"]
    assert len(tail) == MAX_TRACEBACK
    assert tail.rstrip().endswith("x")


def test_servers_say_in_many_words_that_a_prompt_is_too_long() -> None:
    for message in (
        LONG,
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The decoder prompt (length 70) is longer than the maximum model length of 64.",
        "context_length_exceeded",
        "Input is too long for requested model.",
    ):
        assert is_context_overflow(message), message
    assert not is_context_overflow("max_tokens must be at least 1")
