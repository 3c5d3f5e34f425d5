"""What an agent says about its run: rewards, messages, objects, annotations, exceptions.

All but annotations are spans of no length, at the current span: they are on their way as soon as they are said, and are
counted and bound like any other. A reward outside of a rollout is an error; the rest is for whoever looks, and then
does nothing.
"""

import math
import time
import traceback
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode, format_trace_id

from leyden.client import semconv
from leyden.client.errors import NoRolloutError
from leyden.client.instruments import Attributes, annotations, json_text
from leyden.client.outcomes import MAX_MESSAGE
from leyden.client.rollouts import in_rollout, parent_context, root_span
from leyden.client.session import current_session
from leyden.failures import type_name
from leyden.ids import attempt_of_trace

MAX_TEXT = 256 * 1024
"""Characters of a message, an object's JSON or a stack trace that are sent."""


def emit_reward(value: float, name: str = "outcome", explanation: str | None = None) -> None:
    """Give the current rollout a reward, as `gen_ai.evaluation.result`, at the current span.

    Raises `NoRolloutError` outside of a rollout (of this process, or of another whose trace context was taken over),
    and ValueError for what is not a finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"a reward is a finite number, not {value!r}")
    if not _within_a_rollout():
        raise NoRolloutError(f"the reward {name!r} belongs to no rollout: emit it inside of one")
    attributes: Attributes = {
        semconv.GEN_AI_EVALUATION_NAME: name,
        semconv.GEN_AI_EVALUATION_SCORE_VALUE: float(value),
    }
    if explanation is not None:
        attributes[semconv.GEN_AI_EVALUATION_EXPLANATION] = explanation
    _emit(semconv.EVALUATION_RESULT, attributes)


def emit_message(text: str, **values: Any) -> None:
    """Leave a line for whoever looks at the rollout; `values` are its annotations."""
    if _within_a_rollout():
        _emit(semconv.LEYDEN_MESSAGE, {semconv.LEYDEN_MESSAGE: text[:MAX_TEXT], **_cut(text), **annotations(values)})


def emit_object(value: Any, name: str = "object") -> None:
    """Leave anything with a JSON form (else its `str`): a plan, a patch, a page."""
    if _within_a_rollout():
        text = json_text(value)
        _emit(
            semconv.LEYDEN_OBJECT,
            {semconv.LEYDEN_OBJECT: text[:MAX_TEXT], semconv.LEYDEN_OBJECT_NAME: name, **_cut(text)},
        )


def emit_exception(error: BaseException, **values: Any) -> None:
    """Leave an exception that the agent handled: the rollout goes on, rules that look for exceptions see it."""
    if not _within_a_rollout():
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
    """Put keys and values on the current span, or with `rollout=True` on the whole rollout.

    Where there is no span of this process to put them on, they become a span of their own.
    """
    if not _within_a_rollout():
        return
    span = (root_span() if rollout else None) or trace.get_current_span()
    if span.is_recording():
        span.set_attributes(annotations(values))
    else:
        _emit(semconv.LEYDEN_ANNOTATION.removesuffix("."), annotations(values))


def _within_a_rollout() -> bool:
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
