"""Spans that an agent puts around its own work: tool calls and operations, as context managers and decorators.

An exception that passes marks the span as failed. Outside of a rollout they change nothing and send nothing.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from leyden.client import semconv
from leyden.client.outcomes import jsonable
from leyden.client.rollouts import parent_context
from leyden.client.session import tracer
from leyden.client.wrapping import name_of, wrap
from leyden.failures import type_name

T = TypeVar("T")
Attributes = dict[str, str | int | float | bool]


class Spanned:
    """One span around a piece of work; `result` is recorded when it is set."""

    RESULT = ""
    """Attribute that holds the result."""

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
        """What is known before the work."""
        return {}

    def keep(self, result: Any) -> None:
        """The decorated function's result."""
        self.result = result

    def annotate(self, **values: Any) -> Self:
        """Add attributes under `leyden.annotation.`."""
        self._span.set_attributes(annotations(values))
        return self

    def __enter__(self) -> Self:
        """Open the span, as the current one."""
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
        """Close it, with the result or the error."""
        if error is not None:
            self._span.set_attribute(semconv.ERROR_TYPE, type_name(error))
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        elif self.result is not None:
            self._span.set_attribute(self.RESULT, json_text(self.result))
        if self._scope is not None:
            self._scope.__exit__(None, None, None)


class Tool(Spanned):
    """One tool: `with leyden.tool("search", arguments={…}) as call: call.result = …`, or its function's decorator."""

    RESULT = semconv.GEN_AI_TOOL_CALL_RESULT

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
        """As the conventions have it."""
        return f"{semconv.EXECUTE_TOOL} {self.name}"

    def attributes(self) -> Attributes:
        """As the conventions have it."""
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


class Operation(Spanned):
    """Any step that deserves a name: `with leyden.operation("plan") as step: step.result = …`, or a decorator."""

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
        """Under our own prefix: the conventions have no plain operation."""
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

    `parameters` is the JSON Schema of the arguments, for rules that check them; `call_id` the model's id of the call.
    """
    return Tool(name, **options) if name is None or isinstance(name, str) else Tool()(name)


@overload
def operation(function: str | None = None, /, **values: Any) -> Operation: ...


@overload
def operation(function: T, /) -> T: ...


def operation(name: Any = None, /, **values: Any) -> Any:
    """`@leyden.operation`, `@leyden.operation("name")` or `with leyden.operation("name", key=value) as step:`.

    `values` are annotations of its span. What the decorated function takes and returns is recorded.
    """
    return Operation(name, values=values) if name is None or isinstance(name, str) else Operation()(name)


def annotations(values: Mapping[str, Any]) -> Attributes:
    """Values as attributes, under a prefix of their own so that none is taken for what an instrumentation says."""
    plain = (str, bool, int, float)
    return {
        f"{semconv.LEYDEN_ANNOTATION}{key}": value if isinstance(value, plain) else json_text(value)
        for key, value in values.items()
        if value is not None
    }


def json_text(value: Any) -> str:
    """`value` as JSON text; what has no such form becomes its `str`."""
    try:
        return json.dumps(value, default=str, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(jsonable(value), ensure_ascii=False)


def arguments_of(function: Any) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """How to read a call's arguments by parameter name, `self` and `cls` left out.

    A call that the function will refuse is recorded as it came.
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
