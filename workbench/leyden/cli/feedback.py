"""`leyden feedback`: sends a reward as an evaluation span in the rollout's trace, through the gateway's OTLP API."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from leyden.cli.feedback_effect import RolloutFacts, read_facts, without_effect
from leyden.cli.gateway_requests import request
from leyden.cli.ids import attempt_named
from leyden.client import semconv
from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.client.waiting import told_if_slow
from leyden.ids import AttemptRef
from leyden.reading import Log, log_location
from leyden.stack.errors import StackError

Tell = Callable[[str], None]
UNKNOWN_EFFECT = "Whether it still counts is not known here, but in the log: set KAFKA_BOOTSTRAP_SERVERS to read it."


@dataclass(frozen=True)
class Feedback:
    """A reward for one attempt, given by a person or another system."""

    about: AttemptRef
    name: str
    value: float
    comment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Arguments of the command. Raises StackError for a wrong id or value."""

    rollout: str
    """Rollout id, or the trace id of one attempt."""
    attempt: int | None
    name: str
    value: float
    comment: str | None
    data_dir: Path
    reads_log: bool
    """Whether the log that belongs to the gateway can be read from here."""

    def __post_init__(self) -> None:
        attempt_named(self.rollout)
        if not math.isfinite(self.value):
            raise StackError(f"--value {self.value}: must be a finite number.")


def reads_log(gateway_url: str | None) -> bool:
    """Whether the log is known: Kafka is named, or the gateway is that of the local stack."""
    named = gateway_url or os.environ.get("LEYDEN_GATEWAY_URL")
    return bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS")) or not named


def give_feedback(asked: Asked, gateway: GatewayClient, tell: Tell) -> list[str]:
    """Send the reward; what to print. Raises StackError if the rollout or its attempt is unknown."""
    ref, names_attempt = attempt_named(asked.rollout)
    newest = _newest_attempt(gateway, ref.rollout_id)
    facts, unread = _facts(asked, ref.rollout_id, known=newest is not None, tell=tell)
    known = [one for one in (newest, facts.newest if facts else None) if one is not None]
    if not known:
        who = "Neither the gateway nor the log knows" if facts else "The gateway does not know"
        raise StackError(
            f"{who} rollout {ref.rollout_id}. Check the id (`leyden rollouts` lists them), --gateway and --data-dir."
        )
    attempt = asked.attempt if asked.attempt is not None else ref.attempt if names_attempt else max(known)
    if attempt > max(known):
        raise StackError(f"Rollout {ref.rollout_id} has no attempt {attempt}; its newest is {max(known)}.")
    send_feedback(Feedback(AttemptRef(ref.rollout_id, attempt), asked.name, asked.value, asked.comment), gateway)
    lines = [f"{asked.name} = {asked.value:g} for rollout {ref.rollout_id}, attempt {attempt}"]
    if facts is None:
        return [*lines, unread or UNKNOWN_EFFECT]
    why = without_effect(facts, attempt, datetime.now(UTC))
    return [*lines, f"recorded, but without effect: {why}"] if why else lines


def _newest_attempt(gateway: GatewayClient, rollout_id: str) -> int | None:
    """The rollout's newest attempt; None if the gateway does not know it, or no longer."""
    path = f"/leyden/v1/rollouts/{rollout_id}"
    try:
        return int(request(gateway, "GET", path, retry_timeout_s=gateway.retry_timeout_s, hints={})["attempt"])
    except StackError as error:
        if isinstance(error.__cause__, GatewayRefusedError) and error.__cause__.status == 404:
            return None
        raise


def _facts(asked: Asked, rollout_id: str, *, known: bool, tell: Tell) -> tuple[RolloutFacts | None, str]:
    """What the log says; None, and why, if it cannot be read. Raises StackError if only the log could know it."""
    if not asked.reads_log:
        return None, ""
    try:
        return asyncio.run(_read(asked.data_dir, rollout_id, tell)), ""
    except StackError as error:
        if not known:
            raise
        return None, f"Whether it still counts is not known: {error}"


async def _read(data_dir: Path, rollout_id: str, tell: Tell) -> RolloutFacts:
    with log_location(data_dir) as location:
        async with Log(location, None, tell) as log:
            return await read_facts(log, rollout_id)


class _OneTrace(RandomIdGenerator):
    """Puts root spans into an existing trace."""

    def __init__(self, trace_id: str) -> None:
        self._trace_id = int(trace_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id


def evaluation_span(feedback: Feedback, now_ns: int) -> ReadableSpan:
    """The same span as `leyden.emit_reward` sends inside a rollout."""
    trace_id = feedback.about.trace_id
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
        with told_if_slow(f"the gateway at {gateway.url}", gateway.retry_timeout_s):
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
