"""`leyden feedback`: sends a reward as an evaluation span in the rollout's trace, through the gateway's OTLP API."""

import asyncio
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from leyden.cli.feedback_effect import RolloutFacts, read_facts, without_effect
from leyden.cli.gateway_requests import request
from leyden.cli.ids import rollout_named
from leyden.client import semconv
from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.client.waiting import told_if_slow
from leyden.ids import AttemptRef
from leyden.kafka.delivered import Retry
from leyden.kafka.types import KafkaError
from leyden.reading import Log, log_location
from leyden.reading.gateway import stack_at
from leyden.reading.log import Tell
from leyden.stack.errors import StackError

NO_LOG = "the log of that gateway is not known here; set KAFKA_BOOTSTRAP_SERVERS"


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
        rollout_named(self.rollout)
        if not math.isfinite(self.value):
            raise StackError(f"--value {self.value}: must be a finite number.")


def reads_log(gateway_url: str | None, data_dir: Path) -> bool:
    """Whether the log is known: Kafka is named, or the gateway is that of the local stack."""
    named = gateway_url or os.environ.get("LEYDEN_GATEWAY_URL")
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or not named:
        return True
    return stack_at(named, data_dir) is not None


def give_feedback(asked: Asked, gateway: GatewayClient, tell: Tell) -> Iterator[str]:
    """Send the reward; what to print. Raises StackError if the rollout or its attempt is unknown.

    The log is read after sending, but before it if the gateway does not say which attempts the rollout has.
    """
    rollout_id, named = rollout_named(asked.rollout, asked.attempt)
    look = _look(gateway, rollout_id)
    facts, unread = _facts(asked, rollout_id, tell) if look.newest is None else (None, "")
    newest = facts.newest if facts else look.newest
    if newest is None and (facts is not None or (named is None and look.is_allowed)):
        raise StackError(_unknown(rollout_id, look, facts, unread))
    attempt = named if named is not None else newest or 0
    if newest is not None and attempt > newest:
        raise StackError(f"Rollout {rollout_id} has no attempt {attempt}; its newest is {newest}.")
    send_feedback(Feedback(AttemptRef(rollout_id, attempt), asked.name, asked.value, asked.comment), gateway)
    yield f"{asked.name} = {asked.value:g} for rollout {rollout_id}, attempt {attempt}"
    if newest is None:
        why = "the gateway does not know the rollout, or no longer" if look.is_allowed else "the key may not look at it"
        yield f"warning: whether the rollout has this attempt was not checked: {why}"
    if look.newest is not None:
        facts, unread = _facts(asked, rollout_id, tell)
    if facts is None:
        yield f"Whether it still counts is not known: {unread}"
    elif reason := without_effect(facts, attempt, datetime.now(UTC)):
        yield f"recorded, but without effect: {reason}"


@dataclass(frozen=True)
class _Look:
    """What the gateway says of a rollout."""

    newest: int | None
    """Its newest attempt; None if the gateway does not know it, or no longer, or does not say."""
    is_allowed: bool = True
    """Whether the key may look at the rollout; a key of an agent may not."""


def _look(gateway: GatewayClient, rollout_id: str) -> _Look:
    path = f"/leyden/v1/rollouts/{rollout_id}"
    try:
        return _Look(int(request(gateway, "GET", path, retry_timeout_s=gateway.retry_timeout_s, hints={})["attempt"]))
    except StackError as error:
        if isinstance(error.__cause__, GatewayRefusedError) and error.__cause__.status in (403, 404):
            return _Look(None, is_allowed=error.__cause__.status == 404)
        raise


def _unknown(rollout_id: str, look: _Look, facts: RolloutFacts | None, unread: str) -> str:
    who = "Neither the gateway nor the log knows" if look.is_allowed else "The log does not know"
    checks = "Check the id (`leyden rollouts` lists them), --gateway and --data-dir."
    if facts is not None:
        return f"{who} rollout {rollout_id}. {checks}"
    unread = f"The log was not read: {unread.rstrip('.')}. With --attempt the reward is sent unchecked."
    return f"The gateway does not know rollout {rollout_id}, or no longer. {checks} {unread}"


def _facts(asked: Asked, rollout_id: str, tell: Tell) -> tuple[RolloutFacts | None, str]:
    """What the log says; None, and why, if it cannot be read."""
    if not asked.reads_log:
        return None, NO_LOG
    try:
        return asyncio.run(_read(asked.data_dir, rollout_id, tell)), ""
    except (StackError, KafkaError, Retry, OSError) as error:
        return None, str(error) or type(error).__name__


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
