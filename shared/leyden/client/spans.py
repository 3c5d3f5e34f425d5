"""Spans that an agent's author can add: tool calls, operations, rewards, messages, objects, exceptions, annotations.

`tool` and `operation` are context managers and decorators; an exception marks the span as failed. The `emit_*`
functions send a span of zero length below the current span. Outside of a rollout nothing is sent, and `emit_reward`
raises.
"""

import inspect
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode, format_trace_id

from leyden.client import semconv
from leyden.client.decorators import name_of, wrap
from leyden.client.errors import NoRolloutError
from leyden.client.outcomes import MAX_MESSAGE, jsonable, plain
from leyden.client.rollouts import in_rollout, parent_context, root_span
from leyden.client.session import current_session, tracer
from leyden.failures import type_name
from leyden.ids import attempt_of_trace
from leyden.scalar import as_number

T = TypeVar("T")
Attributes = dict[str, str | int | float | bool]

MAX_TEXT = 256 * 1024
"""Maximum characters of a message, an object's JSON or a stack trace."""


class SpanScope:
    """A span around a piece of work; `result` is recorded when it is set."""

    RESULT = ""
    """Name of the attribute for the result."""
    NO_RESULT_IS_ONE = False
    """Whether work that ends without an error and without a result has the result null."""

    def __init__(self, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.result: Any = None
        self.arguments = arguments
        self._scope: AbstractContextManager[trace.Span] | None = None
        self._span: trace.Span = trace.INVALID_SPAN

    def title(self) -> str:
        """The span's name."""
        return self.name

    def attributes(self) -> Attributes:
        """The span's attributes at its start."""
        return {}

    def keep(self, result: Any) -> None:
        """Keep the decorated function's result."""
        self.result = result

    def annotate(self, **values: Any) -> Self:
        """Add attributes under `leyden.annotation.`"""
        self._span.set_attributes(annotations(values))
        return self

    def __enter__(self) -> Self:
        """Start the span and make it current."""
        self._scope = tracer().start_as_current_span(
            self.title(),
            context=parent_context(),
            attributes=self.attributes(),
            record_exception=False,
            set_status_on_exception=False,
        )
        self._span = self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span with the result or the error."""
        if error is not None:
            self._span.set_attribute(semconv.ERROR_TYPE, type_name(error))
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        elif self.result is not None or self.NO_RESULT_IS_ONE:
            self._span.set_attribute(self.RESULT, json_text(self.result))
        if self._scope is not None:
            self._scope.__exit__(None, None, None)


class Tool(SpanScope):
    """A tool call: `with leyden.tool("search", arguments={…}) as call: call.result = …`, or a decorator."""

    RESULT = semconv.GEN_AI_TOOL_CALL_RESULT
    NO_RESULT_IS_ONE = True

    def __init__(
        self,
        name: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        call_id: str | None = None,
    ) -> None:
        super().__init__(name or "tool", arguments)
        self._named = name is not None
        self._parameters = parameters
        self._call_id = call_id

    def __call__(self, function: T) -> T:
        """Decorate a function; its arguments and result are recorded."""
        name = self.name if self._named else name_of(function, "tool")
        read = arguments_of(function)
        return wrap(function, lambda a, kw: Tool(name, arguments=read(a, kw), parameters=self._parameters))

    def title(self) -> str:
        """The name that the GenAI conventions ask for."""
        return f"{semconv.EXECUTE_TOOL} {self.name}"

    def attributes(self) -> Attributes:
        """Attributes of the GenAI conventions."""
        attributes: Attributes = {
            semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
            semconv.GEN_AI_TOOL_NAME: self.name,
            semconv.GEN_AI_TOOL_TYPE: "function",
        }
        if self._call_id is not None:
            attributes[semconv.GEN_AI_TOOL_CALL_ID] = self._call_id
        if self.arguments is not None:
            attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = json_text(self.arguments)
        if self._parameters is not None:
            attributes[semconv.LEYDEN_TOOL_PARAMETERS] = json_text(self._parameters)
        return attributes


class Operation(SpanScope):
    """A named step: `with leyden.operation("plan") as step: step.result = …`, or a decorator."""

    RESULT = semconv.LEYDEN_OPERATION_RESULT

    def __init__(
        self, name: str | None = None, *, arguments: Mapping[str, Any] | None = None, values: Mapping[str, Any] = {}
    ) -> None:
        super().__init__(name or "operation", arguments)
        self._named = name is not None
        self._values = values

    def __call__(self, function: T) -> T:
        """Decorate a function; its arguments and result are recorded."""
        name = self.name if self._named else name_of(function, "operation")
        read = arguments_of(function)
        return wrap(function, lambda a, kw: Operation(name, arguments=read(a, kw), values=self._values))

    def attributes(self) -> Attributes:
        """Attributes with our own prefix: the conventions have no plain operation."""
        attributes: Attributes = {semconv.LEYDEN_OPERATION_NAME: self.name, **annotations(self._values)}
        if self.arguments is not None:
            attributes[semconv.LEYDEN_OPERATION_ARGUMENTS] = json_text(self.arguments)
        return attributes


@overload
def tool(function: str | None = None, /, **options: Any) -> Tool: ...


@overload
def tool(function: T, /) -> T: ...


def tool(name: Any = None, /, **options: Any) -> Any:
    """`@leyden.tool`, `@leyden.tool("name")` or `with leyden.tool("name", arguments={…}) as call:`; see `Tool`.

    `parameters` is the JSON Schema of the arguments, which reward rules can check; `call_id` is the model's call id.
    """
    return Tool(name, **options) if name is None or isinstance(name, str) else Tool()(name)


@overload
def operation(function: str | None = None, /, **values: Any) -> Operation: ...


@overload
def operation(function: T, /) -> T: ...


def operation(name: Any = None, /, **values: Any) -> Any:
    """`@leyden.operation`, `@leyden.operation("name")` or `with leyden.operation("name", key=value) as step:`.

    `values` are annotations of the span. Arguments and result of a decorated function are recorded.
    """
    return Operation(name, values=values) if name is None or isinstance(name, str) else Operation()(name)


def annotations(values: Mapping[str, Any]) -> Attributes:
    """Values as attributes with the annotation prefix, which avoids collisions with other instrumentations."""
    return {
        f"{semconv.LEYDEN_ANNOTATION}{key}": _attribute(value) for key, value in values.items() if value is not None
    }


def _attribute(value: Any) -> str | bool | int | float:
    if isinstance(value, str):
        return value
    number = as_number(value)
    return json_text(value) if number is None else number


def json_text(value: Any) -> str:
    """`value` as JSON text; values that JSON cannot represent become their `str`."""
    try:
        return json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(jsonable(value), ensure_ascii=False)


def arguments_of(function: Any) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """A function that maps a call's arguments to parameter names, without `self` and `cls`.

    Arguments that do not fit the signature are recorded as they are.
    """
    plain = getattr(function, "__func__", function)
    try:
        signature = inspect.signature(plain.__call__ if inspect.isclass(plain) else plain)
    except (TypeError, ValueError):
        return lambda args, kwargs: {"args": list(args), **kwargs}

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return {"args": list(args), **kwargs}
        return {name: value for name, value in bound.items() if name not in {"self", "cls"}}

    return read


def emit_reward(value: float, name: str = "outcome", explanation: str | None = None) -> None:
    """Give the current rollout a reward, as a `gen_ai.evaluation.result` span.

    Raises `NoRolloutError` when neither this process nor its trace context is in a rollout, and ValueError when the
    value is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"a reward must be a finite number, not {value!r}")
    if not _is_in_rollout():
        raise NoRolloutError(f"no rollout for the reward {name!r}: call emit_reward inside a rollout")
    attributes: Attributes = {
        semconv.GEN_AI_EVALUATION_NAME: name,
        semconv.GEN_AI_EVALUATION_SCORE_VALUE: float(value),
    }
    if explanation is not None:
        attributes[semconv.GEN_AI_EVALUATION_EXPLANATION] = explanation
    _emit(semconv.EVALUATION_RESULT, attributes)


def emit_message(text: str, **values: Any) -> None:
    """Record a message; `values` are its annotations."""
    if _is_in_rollout():
        _emit(semconv.LEYDEN_MESSAGE, {semconv.LEYDEN_MESSAGE: text[:MAX_TEXT], **_cut(text), **annotations(values)})


def emit_object(value: Any, name: str = "object") -> None:
    """Record a value as JSON (else as its `str`): a plan, a patch, a page."""
    if _is_in_rollout():
        text = json_text(value)
        _emit(
            semconv.LEYDEN_OBJECT,
            {semconv.LEYDEN_OBJECT: text[:MAX_TEXT], semconv.LEYDEN_OBJECT_NAME: name, **_cut(text)},
        )


def emit_exception(error: BaseException, **values: Any) -> None:
    """Record an exception that the agent handled; reward rules on exceptions see it."""
    if not _is_in_rollout():
        return
    stack = "".join(traceback.format_exception(error))[-MAX_TEXT:]
    attributes: Attributes = {
        semconv.ERROR_TYPE: type_name(error),
        semconv.EXCEPTION_TYPE: type_name(error),
        semconv.EXCEPTION_MESSAGE: str(error)[:MAX_MESSAGE],
        semconv.EXCEPTION_STACKTRACE: stack,
        **annotations(values),
    }
    _emit(semconv.LEYDEN_EXCEPTION, attributes, Status(StatusCode.ERROR, str(error)[:MAX_MESSAGE]))


def annotate(*, rollout: bool = False, **values: Any) -> None:
    """Set attributes on the current span, or with `rollout=True` on the rollout's root span.

    If that span belongs to another process, they are sent as a separate span.
    """
    if not _is_in_rollout():
        return
    span = (root_span() if rollout else None) or trace.get_current_span()
    if span.is_recording():
        span.set_attributes(annotations(values))
    else:
        _emit(semconv.LEYDEN_ANNOTATION.removesuffix("."), annotations(values))


def _is_in_rollout() -> bool:
    return (
        in_rollout() is not None
        or attempt_of_trace(format_trace_id(trace.get_current_span().get_span_context().trace_id)) is not None
    )


def _emit(name: str, attributes: Attributes, status: Status | None = None) -> None:
    claim = in_rollout()
    if claim and not claim.recorded:
        return
    now = time.time_ns()
    span = current_session().tracer.start_span(name, parent_context(), attributes=attributes, start_time=now)
    if status is not None:
        span.set_status(status)
    span.end(now)


def _cut(text: str) -> Attributes:
    return {semconv.LEYDEN_CUT: len(text)} if len(text) > MAX_TEXT else {}
