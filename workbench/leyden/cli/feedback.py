"""`leyden feedback`: a late reward, sent as an evaluation span of the rollout's trace to the gateway's OTLP API."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from leyden.client import semconv
from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.stack.errors import StackError
from leyden.stack.state import DataFolder

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Feedback:
    """One judgement of a rollout, given from outside."""

    rollout: str
    """Rollout id, or the trace id of one attempt."""
    attempt: int | None
    name: str
    value: float
    comment: str | None

    def subject(self) -> AttemptRef:
        """The attempt that is judged: the one asked for, the trace id's, else 0. Raises StackError."""
        ref = attempt_of_trace(self.rollout)
        if ref is None:
            raise StackError(f"{self.rollout} is no rollout id (28 hex digits) and no trace id of one (32 hex digits).")
        if not math.isfinite(self.value):
            raise StackError(f"--value {self.value}: a reward is a finite number.")
        return ref if self.attempt is None else AttemptRef(ref.rollout_id, self.attempt)


class _OneTrace(RandomIdGenerator):
    """Spans of a trace that began elsewhere, without a parent."""

    def __init__(self, trace_id: str) -> None:
        self._trace_id = int(trace_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id


def evaluation_span(feedback: Feedback, now_ns: int) -> ReadableSpan:
    """The span that `leyden.emit_reward` would have sent from inside the rollout."""
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
    """Send it; raises StackError with what the gateway said. Sending again after an error cannot count twice."""
    payload = encode_spans([evaluation_span(feedback, time.time_ns())]).SerializeToString()
    try:
        rejected = gateway.export(payload)
    except GatewayUnavailableError as error:
        raise StackError(f"The feedback was not delivered: {error}") from error
    except GatewayRefusedError as error:
        hint = " Give a key of the gateway with --api-key or LEYDEN_API_KEY." if error.status in (401, 403) else ""
        raise StackError(f"The feedback was refused: {error}.{hint}") from error
    except GatewayError as error:
        raise StackError(f"The feedback failed: {error}") from error
    if rejected:
        raise StackError("The feedback was refused: the gateway rejected its span.")


def gateway_of(url: str | None, api_key: str | None, data_dir: Path) -> GatewayClient:
    """The gateway that was named, the environment's, or that of the stack that runs in `data_dir`."""
    url = url or os.environ.get("LEYDEN_GATEWAY_URL")
    api_key = api_key or os.environ.get("LEYDEN_API_KEY")
    folder = DataFolder(data_dir)
    if not url:
        state = folder.read_state()
        if not state.is_running:
            raise StackError(
                f"No stack runs in {folder.root}. Name a gateway with --gateway or LEYDEN_GATEWAY_URL, "
                "or the folder of a running stack with --data-dir."
            )
        url, api_key = state.gateway_url, api_key or folder.secrets().api_key
    if not url.startswith(("http://", "https://")):
        raise StackError(f"{url!r} is no gateway's address: it begins with http:// or https://.")
    return GatewayClient(url, api_key, PATIENCE_S)
