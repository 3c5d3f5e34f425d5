"""Which class of failure an exception is, told by the names of its classes. No IO, and no framework is imported.

It knows the clients that agents call models with (openai, anthropic, httpx and what builds on them), the usual names of
tool errors and parsers, and the machine's own troubles. What it does not know is the agent's own exception. The gateway
refines the class with what it saw of the attempt's last calls.
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
    "tool_error",
    "context_overflow",
    "malformed_output",
    "repetition_loop",
    "cancelled",
]
"""As in the log; here as text, so that an agent's environment needs no more than this."""
MAX_TRACEBACK = 4000
"""Characters of a traceback's end that are kept."""
MAX_CHAIN = 20
"""Causes that are looked at."""

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
    """An exception's class of failure, and what shows it."""

    failure_class: FailureClass
    evidence: dict[str, Any]
    """In the form of the log's failure evidence; empty values are left away."""


def classify(error: BaseException) -> Classified:
    """The class of the outermost exception that has one, along the causes and into groups; else `agent_exception`."""
    found: FailureClass = "agent_exception"
    shown = error
    for one in _chain(error):
        if (kind := _class_of(one)) is not None:
            found, shown = kind, one
            break
    evidence = {"error_type": type_name(shown), "tool": _tool_of(shown), "traceback": _tail(error)}
    return Classified(found, {name: value for name, value in evidence.items() if value})


def is_context_overflow(message: str) -> bool:
    """Whether a model server's error says that the prompt was too long."""
    return _CONTEXT.search(message) is not None


def type_name(error: BaseException) -> str:
    """The exception's class as `error.type` wants it: qualified, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and of groups the first member; a cycle ends."""
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
    """An error of a model call: the model's, or of the way to it."""
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
    """Where an HTTP client's failed request went; "" where it does not say."""
    for owner in ("_request", "request", "response", "request_info"):
        # httpx raises from its property where there is no request.
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
