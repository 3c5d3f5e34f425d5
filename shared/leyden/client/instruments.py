"""What an agent may say about its own work: rewards and tool calls, as spans of the current rollout."""

import functools
import inspect
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode, format_trace_id

from leyden.client import semconv
from leyden.client.errors import NoRolloutError
from leyden.client.outcomes import jsonable, type_name
from leyden.client.rollouts import in_rollout
from leyden.client.session import current_session, tracer
from leyden.ids import attempt_of_trace

P = ParamSpec("P")
R = TypeVar("R")


def emit_reward(value: float, name: str = "outcome", explanation: str | None = None) -> None:
    """Give the current rollout a reward, as `gen_ai.evaluation.result`, at the current span.

    Raises `NoRolloutError` outside of a rollout (of this process, or of another whose trace context was taken over),
    and ValueError for what is not a finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"a reward is a finite number, not {value!r}")
    claim = in_rollout()
    if claim and not claim.recorded:
        return
    if not claim and attempt_of_trace(format_trace_id(trace.get_current_span().get_span_context().trace_id)) is None:
        raise NoRolloutError(f"the reward {name!r} belongs to no rollout: emit it inside of one")
    attributes: dict[str, str | float] = {
        semconv.GEN_AI_EVALUATION_NAME: name,
        semconv.GEN_AI_EVALUATION_SCORE_VALUE: float(value),
    }
    if explanation is not None:
        attributes[semconv.GEN_AI_EVALUATION_EXPLANATION] = explanation
    now = time.time_ns()
    span = current_session().tracer.start_span(semconv.EVALUATION_RESULT, attributes=attributes, start_time=now)
    span.end(now)


class Tool:
    """One tool: `with leyden.tool("search", arguments={…}) as call: call.result = …`, or a decorator of its function.

    An exception that passes marks the span as failed. Outside of a rollout it changes nothing and sends nothing.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        call_id: str | None = None,
    ) -> None:
        self.name = name or "tool"
        self.result: Any = None
        self._named = name is not None
        self._arguments = arguments
        self._parameters = parameters
        self._call_id = call_id
        self._scope: AbstractContextManager[trace.Span] | None = None
        self._span: trace.Span = trace.INVALID_SPAN

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a sync or async function; its arguments and result are recorded."""
        name = self.name if self._named else getattr(function, "__name__", "tool")
        signature = inspect.signature(function)

        def one_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tool:
            return Tool(name, arguments=_named_arguments(signature, args, kwargs), parameters=self._parameters)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with one_call(args, kwargs) as call:
                    call.result = await function(*args, **kwargs)
                    return call.result

            return cast("Callable[P, R]", run_async)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with one_call(args, kwargs) as call:
                call.result = result = function(*args, **kwargs)
                return result

        return run

    def __enter__(self) -> Self:
        """Open the span `execute_tool <name>`."""
        attributes: dict[str, str] = {
            semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
            semconv.GEN_AI_TOOL_NAME: self.name,
            semconv.GEN_AI_TOOL_TYPE: "function",
        }
        if self._call_id is not None:
            attributes[semconv.GEN_AI_TOOL_CALL_ID] = self._call_id
        if self._arguments is not None:
            attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = _json_text(self._arguments)
        if self._parameters is not None:
            attributes[semconv.LEYDEN_TOOL_PARAMETERS] = _json_text(self._parameters)
        self._scope = tracer().start_as_current_span(
            f"{semconv.EXECUTE_TOOL} {self.name}",
            attributes=attributes,
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
            self._span.set_attribute(semconv.GEN_AI_TOOL_CALL_RESULT, _json_text(self.result))
        if self._scope is not None:
            self._scope.__exit__(None, None, None)


@overload
def tool(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def tool(
    name: str | None = None,
    /,
    *,
    arguments: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    call_id: str | None = None,
) -> Tool: ...


def tool(name: Any = None, /, **options: Any) -> Any:
    """`@leyden.tool`, `@leyden.tool("name")` or `with leyden.tool("name", arguments={…}) as call:`; see `Tool`.

    `parameters` is the JSON Schema of the arguments, for rules that check them.
    """
    return Tool()(name) if callable(name) else Tool(name, **options)


def _named_arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, `self` left out; a call that the function will refuse is recorded as it came."""
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {"args": list(args), **kwargs}
    return {name: value for name, value in bound.items() if name not in {"self", "cls"}}


def _json_text(value: Any) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False)
