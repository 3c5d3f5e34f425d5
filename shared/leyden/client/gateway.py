"""HTTP client of the gateway: synchronous, thread-safe, and patient with a gateway that is restarting.

It retries connection errors, 429 and 5xx until a timeout, and honours `Retry-After`. That is safe: starts, ends and
heartbeats are idempotent, and when the answer to a claim is lost, the gateway gives the attempt up after its lease.
"""

import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from leyden.backoff import Backoff
from leyden.client.claims import Claim
from leyden.client.errors import (
    AttemptOverError,
    GatewayError,
    GatewayRefusedError,
    GatewayUnavailableError,
)
from leyden.retry_after import retry_after_s

REQUEST_TIMEOUT_S = 15.0
"""For one request, in addition to the time of a long poll."""
START_PAUSE_S = 10.0
"""After a failed `start_now` no other is tried for so long: agents wait for the gateway once, not each time."""
MIN_REQUEST_TIMEOUT_S = 0.1
BACKOFF = Backoff(first_s=0.2, max_s=5.0, jitter=lambda delay_s: delay_s * random.uniform(0.5, 1.0))


class RealTime:
    """The clock, and waiting that an event can end."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for the event; whether it was set in time."""
        return event.wait(timeout_s)


class GatewayClient:
    """One gateway, one key. `retry_timeout_s` is how long each call is retried."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        retry_timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        clock: RealTime = RealTime(),  # noqa: B008 - it has no state
    ) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.retry_timeout_s = retry_timeout_s
        self._transport = transport
        self._clock = clock
        self.failing = False
        """Whether the last request of any call failed."""
        self._start_again_at = 0.0
        self._closed = threading.Event()
        self._http = self._connect()

    def start(self, body: dict[str, Any], retry_timeout_s: float | None = None) -> Claim:
        """Start a rollout of the caller's own."""
        return self._start(body, self._or_default(retry_timeout_s), capped=False)

    def start_now(self, body: dict[str, Any], timeout_s: float) -> Claim:
        """As `start`, within `timeout_s` in all; fails at once for `START_PAUSE_S` after another such call failed."""
        if self._clock.monotonic() < self._start_again_at:
            raise GatewayUnavailableError(f"{self.url} did not answer a moment ago")
        try:
            return self._start(body, timeout_s, capped=True)
        except GatewayUnavailableError:
            self._start_again_at = self._clock.monotonic() + START_PAUSE_S
            raise

    def _start(self, body: dict[str, Any], retry_timeout_s: float, capped: bool) -> Claim:
        # The gateway recognises retries of one start by this key.
        content = {"json": body, "headers": {"idempotency-key": secrets.token_hex(16)}}
        return Claim.from_json(_json(self._send("/leyden/v1/rollouts", content, retry_timeout_s, capped=capped)))

    def claim(self, runner: str, limit: int, wait_s: float, retry_timeout_s: float | None = None) -> list[Claim]:
        """Claim up to `limit` queued attempts; waits up to `wait_s` for the first."""
        body = {"runner": runner, "limit": limit, "wait_s": wait_s}
        timeout_s = wait_s + REQUEST_TIMEOUT_S
        answer = self.request("POST", "/leyden/v1/rollouts/claim", body, retry_timeout_s, timeout_s)
        return [Claim.from_json(rollout) for rollout in answer.get("rollouts", [])]

    def heartbeat(self, claim: Claim) -> float:
        """Renew the attempt's lease, with one request; its seconds from now. Raises `AttemptOverError` when lost."""
        return float(self.request("POST", f"{_path(claim)}/heartbeat", {}, retry_timeout_s=0.0)["lease_s"])

    def end(self, claim: Claim, body: dict[str, Any]) -> None:
        """End the attempt. Raises `AttemptOverError` when it has ended in another way."""
        self._send(f"{_path(claim)}/end", {"json": body}, self.retry_timeout_s)

    def queued(self) -> int:
        """How many attempts are waiting in the queue."""
        return int(self.request("GET", "/leyden/v1/queue").get("queued", 0))

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        retry_timeout_s: float | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> dict[str, Any]:
        """The JSON answer of a route that may be retried; with 0.0 there is one request. Raises `GatewayError`."""
        content = {"timeout": timeout_s} | ({} if body is None else {"json": body})
        return _json(self._send(path, content, self._or_default(retry_timeout_s), method=method))

    def export(self, payload: bytes) -> int:
        """Send an OTLP export request (protobuf); the number of rejected spans."""
        content = {"content": payload, "headers": {"content-type": "application/x-protobuf"}}
        answer = self._send("/v1/traces", content, self.retry_timeout_s)
        if not answer.headers.get("content-type", "").startswith("application/x-protobuf"):
            return 0
        return int(ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans)

    def close(self) -> None:
        """Close the connections; calls that wait for a retry fail at once."""
        self._closed.set()
        self._http.close()

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        self._closed = threading.Event()
        self._start_again_at, self.failing = 0.0, False
        self._http = self._connect()

    def _connect(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=REQUEST_TIMEOUT_S, limits=limits, transport=self._transport
        )

    def _or_default(self, retry_timeout_s: float | None) -> float:
        return self.retry_timeout_s if retry_timeout_s is None else retry_timeout_s

    def _send(
        self, path: str, content: dict[str, Any], retry_timeout_s: float, *, method: str = "POST", capped: bool = False
    ) -> httpx.Response:
        """The 2xx answer. Raises `GatewayUnavailableError`, `GatewayRefusedError`, `AttemptOverError`.

        `capped` limits each request to the time that is left until the retry timeout.
        """
        deadline = self._clock.monotonic() + retry_timeout_s
        for delay_s in BACKOFF.delays():
            if self._closed.is_set():
                raise GatewayUnavailableError("the connection to the gateway was closed")
            if capped:
                left_s = deadline - self._clock.monotonic()
                content = content | {"timeout": min(REQUEST_TIMEOUT_S, max(left_s, MIN_REQUEST_TIMEOUT_S))}
            try:
                with _not_traced():
                    answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                problem, wait_s = f"{type(error).__name__}: {error}", delay_s
            else:
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    self.failing = False
                    return _accepted(answer)
                problem = f"the gateway answered {answer.status_code}: {message_of(answer)}"
                wait_s = max(delay_s, retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC)))
            self.failing = True
            if self._clock.monotonic() + wait_s > deadline or self._clock.wait(self._closed, wait_s):
                raise GatewayUnavailableError(f"no answer from {self.url}{path}: {problem}")
        raise AssertionError("the delays never end")


@contextmanager
def _not_traced() -> Iterator[None]:
    """Make no spans of our own requests, whatever HTTP instrumentation the agent has."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)


def _path(claim: Claim) -> str:
    return f"/leyden/v1/rollouts/{claim.rollout_id}/attempts/{claim.attempt}"


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    kind = AttemptOverError if answer.status_code == httpx.codes.CONFLICT else GatewayRefusedError
    raise kind(answer.status_code, message_of(answer))


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise GatewayError(f"the gateway's answer is not JSON: {answer.text[:200]!r}") from error
    if not isinstance(document, dict):
        raise GatewayError(f"the gateway's answer is not a JSON object: {answer.text[:200]!r}")
    return document


def message_of(answer: httpx.Response) -> str:
    """The message of an error answer; the beginning of the body when it has another shape."""
    try:
        return str(answer.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500] or answer.reason_phrase
