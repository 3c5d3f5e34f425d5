"""`leyden feedback`: sends a reward as an evaluation span in the rollout's trace, through the gateway's OTLP API."""

import math
import time
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from leyden.client import semconv
from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.stack.errors import StackError


@dataclass(frozen=True)
class Feedback:
    """A reward for a rollout, given by a person or another system."""

    rollout: str
    """Rollout id, or the trace id of one attempt."""
    attempt: int | None
    name: str
    value: float
    comment: str | None

    def subject(self) -> AttemptRef:
        """The attempt to reward: the one given, else the trace id's, else 0. Raises StackError."""
        ref = attempt_of_trace(self.rollout)
        if ref is None:
            raise StackError(
                f"{self.rollout} is neither a rollout id (28 hex digits) nor an attempt's trace id (32 hex digits)."
            )
        if not math.isfinite(self.value):
            raise StackError(f"--value {self.value}: must be a finite number.")
        return ref if self.attempt is None else AttemptRef(ref.rollout_id, self.attempt)


class _OneTrace(RandomIdGenerator):
    """Puts root spans into an existing trace."""

    def __init__(self, trace_id: str) -> None:
        self._trace_id = int(trace_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id


def evaluation_span(feedback: Feedback, now_ns: int) -> ReadableSpan:
    """The same span as `leyden.emit_reward` sends inside a rollout."""
    trace_id = feedback.subject().trace_id
    provider = TracerProvider(
        resource=Resource({"service.name": "leyden feedback"}), id_generator=_OneTrace(trace_id), shutdown_on_exit=False
    )
    attributes: dict[str, str | float] = {
        semconv.GEN_AI_EVALUATION_NAME: feedback.name,
        semconv.GEN_AI_EVALUATION_SCORE_VALUE: float(feedback.value),
    }
    if feedback.comment:
        attributes[semconv.GEN_AI_EVALUATION_EXPLANATION] = feedback.comment
    tracer = provider.get_tracer("leyden.cli", schema_url=semconv.SCHEMA_URL)
    span = tracer.start_span(semconv.EVALUATION_RESULT, attributes=attributes, start_time=now_ns)
    span.end(now_ns)
    assert isinstance(span, ReadableSpan)
    return span


def send_feedback(feedback: Feedback, gateway: GatewayClient) -> None:
    """Send it. Raises StackError with the gateway's message; after an error it is safe to send it again."""
    payload = encode_spans([evaluation_span(feedback, time.time_ns())]).SerializeToString()
    try:
        rejected = gateway.export(payload)
    except GatewayUnavailableError as error:
        raise StackError(f"The feedback was not delivered: {error}") from error
    except GatewayRefusedError as error:
        hint = " Pass a valid key with --api-key or LEYDEN_API_KEY." if error.status in (401, 403) else ""
        raise StackError(f"The feedback was refused: {error}.{hint}") from error
    except GatewayError as error:
        raise StackError(f"The feedback failed: {error}") from error
    if rejected:
        raise StackError("The feedback was refused: the gateway rejected its span.")
