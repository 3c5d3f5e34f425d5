"""Classifies an agent's exception as one of the failure classes, by the names of its types. Imports no framework.

It knows model clients (openai, anthropic, httpx and libraries built on them), common names of tool and parser errors,
and errors of the machine (memory, disk, file handles). Anything else is `agent_exception`. The gateway may refine the
class from the attempt's last model calls.
"""

import errno
import re
import traceback
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

FailureClass = Literal[
    "agent_exception",
    "timeout",
    "runner_lost",
    "model_error",
    "infrastructure",
    "interrupted",
    "tool_error",
    "context_overflow",
    "malformed_output",
    "repetition_loop",
    "cancelled",
]
"""The values of `leyden.events.FailureClass`, as plain strings: the client library does not import the events."""
MAX_TRACEBACK = 4000
"""Characters kept of a traceback, from its end."""
MAX_CHAIN = 20
"""How many causes of an exception are followed."""

_CONTEXT = re.compile(
    r"context[_ ]length|context[_ ]window|maximum context|max_model_len|prompt is too long|input is too long|"
    r"too many (input )?tokens|maximum (prompt|input|sequence) length|exceeds? the (model'?s )?(maximum|context)|"
    r"longer than the maximum model length",
    re.IGNORECASE,
)
_MODEL_CLIENTS = frozenset({"openai", "anthropic", "litellm", "mistralai", "cohere"})
_MODEL_BASES = frozenset({"APIError", "OpenAIError", "AnthropicError"})
_NO_ANSWER = frozenset({"APIConnectionError", "APITimeoutError"})
_HTTP = frozenset({"httpx", "requests", "aiohttp", "urllib3"})
_MODEL_URL = re.compile(r"/rollouts/1e7de[0-9a-f]+/|/v1/(chat/completions|completions|responses|messages|embeddings)\b")
_TOOL_NAMES = frozenset(
    {
        "ToolError", "ToolException", "ToolExecutionError", "ToolInvocationError", "ToolUsageError", "ToolCallError",
        "ToolUseError", "McpError", "FunctionExecutionException", "FunctionInvokeException", "PluginInvokeException",
    }
)  # fmt: skip
_PARSER_NAMES = frozenset(
    {
        "OutputParserException", "OutputParserError", "ModelBehaviorError", "UnexpectedModelBehavior",
        "LengthFinishReasonError", "StructuredOutputValidationError", "InstructorRetryException",
        "APIResponseValidationError",
    }
)  # fmt: skip
_PARSERS = frozenset(
    {
        ("json.decoder", "JSONDecodeError"),
        ("orjson", "JSONDecodeError"),
        ("pydantic_core._pydantic_core", "ValidationError"),
        ("jsonschema.exceptions", "ValidationError"),
    }
)
_MACHINE = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EDQUOT})


class Classified(NamedTuple):
    """The failure class of an exception, and its evidence."""

    failure_class: FailureClass
    evidence: dict[str, Any]
    """Fields of `FailureEvidence`; empty ones are omitted."""


def classify(error: BaseException) -> Classified:
    """Classify `error` by the first known type among it, its causes and group members; else `agent_exception`."""
    found: FailureClass = "agent_exception"
    shown = error
    for one in _chain(error):
        if (kind := _class_of(one)) is not None:
            found, shown = kind, one
            break
    evidence = {"error_type": type_name(shown), "tool": _tool_of(shown), "traceback": _tail(error)}
    return Classified(found, {name: value for name, value in evidence.items() if value})


def is_context_overflow(message: str) -> bool:
    """Whether a model server's error message means that the prompt was too long."""
    return _CONTEXT.search(message) is not None


def type_name(error: BaseException) -> str:
    """The value for `error.type`: the qualified class name, without the module for builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then its causes; for a group its first member. Stops at a cycle."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(current))
        yield current
        members = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        current = current.__cause__ or next(iter(members), None)


def _class_of(error: BaseException) -> FailureClass | None:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE):
        return "infrastructure"
    bases = [(base.__module__, base.__name__) for base in type(error).__mro__]
    names = {name for _, name in bases}
    packages = {module.partition(".")[0] for module, _ in bases}
    if "GatewayError" in names and "leyden" in packages:
        return "infrastructure"
    if names & _TOOL_NAMES:
        return "tool_error"
    if names & _PARSER_NAMES or _PARSERS & set(bases):
        return "malformed_output"
    if any(module.partition(".")[0] in _MODEL_CLIENTS and name in _MODEL_BASES for module, name in bases):
        return _model_class(error, names)
    if packages & _HTTP and _MODEL_URL.search(_url_of(error)):
        return _model_class(error, names)
    return None


def _model_class(error: BaseException, names: set[str]) -> FailureClass:
    """The class of a failed model call: an error of the model, or of the connection to it."""
    status = _status_of(error)
    code = str(getattr(error, "code", None) or "")
    if "ContextWindowExceededError" in names or code == "context_length_exceeded" or is_context_overflow(str(error)):
        return "context_overflow"
    if names & _NO_ANSWER or status in (401, 403, 429, 502, 503, 504, 529):
        return "infrastructure"
    return (
        "model_error" if status is not None or not names & {"TransportError", "ConnectionError"} else "infrastructure"
    )


def _status_of(error: BaseException) -> int | None:
    found = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    status = found or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _url_of(error: BaseException) -> str:
    """The URL of an HTTP client's failed request; "" if unknown."""
    for owner in ("_request", "request", "response", "request_info"):
        # Read from __dict__: the property of httpx raises if there is no request.
        url = getattr(error.__dict__.get(owner), "url", None) if hasattr(error, "__dict__") else None
        if url is not None:
            return str(url)
    return ""


def _tool_of(error: BaseException) -> str | None:
    name = getattr(error, "tool_name", None)
    return name if isinstance(name, str) else None


def _tail(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    return "".join(traceback.format_exception(error, limit=-12))[-MAX_TRACEBACK:]
