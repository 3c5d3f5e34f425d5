"""The gateway's HTTP interface, called synchronously, from any thread. Every call survives a restarting gateway.

It retries what may pass (no connection, a cut connection, 429, 5xx) until its patience runs out, and honours
`Retry-After`. That is safe because starts, ends and heartbeats are idempotent, and a claim whose answer was lost is
given up by the gateway when its lease runs out.
"""

import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from leyden.client.claims import Claim
from leyden.client.errors import (
    AttemptOverError,
    GatewayError,
    GatewayRefusedError,
    GatewayUnavailableError,
)

FIRST_DELAY_S = 0.2
MAX_DELAY_S = 5.0
TIMEOUT_S = 15.0
"""Of one try, beside what a long poll waits."""
AWAY_S = 10.0
"""After a start in vain, so long no other is tried: an agent waits for the gateway once, not each time."""
MIN_TRY_S = 0.1


class Backoff:
    """Delays between tries: doubling with jitter, never shorter than the server asked for, None past the deadline."""

    def __init__(self, patience_s: float) -> None:
        self._deadline = time.monotonic() + patience_s
        self._delay = FIRST_DELAY_S

    @property
    def left_s(self) -> float:
        """Until the deadline."""
        return self._deadline - time.monotonic()

    def next(self, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait before the next try, or None when it is time to give up."""
        delay = max(self._delay * random.uniform(0.5, 1.0), retry_after_s or 0.0)
        self._delay = min(self._delay * 2, MAX_DELAY_S)
        return delay if time.monotonic() + delay <= self._deadline else None


class Gateway:
    """One gateway, one key. `patience_s` is how long each call keeps trying."""

    def __init__(
        self, url: str, api_key: str | None, patience_s: float = 60.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.patience_s = patience_s
        self._transport = transport
        self.failing = False
        """Whether the last try of any call came to nothing."""
        self._away_until = 0.0
        self._closed = threading.Event()
        self._http = self._connect()

    def start(self, body: dict[str, Any], patience_s: float | None = None, hurry: bool = False) -> Claim:
        """Begin a rollout of the caller's own accord.

        In a hurry no try outlasts the patience, and none is made for `AWAY_S` after one such call was in vain.
        """
        # Tries of one start are one rollout: the gateway knows them by this key.
        content = {"json": body, "headers": {"idempotency-key": secrets.token_hex(16)}}
        patience = self.patience_s if patience_s is None else patience_s
        if not hurry:
            return Claim.from_json(_json(self._send("/leyden/v1/rollouts", content, patience)))
        if time.monotonic() < self._away_until:
            raise GatewayUnavailableError(f"{self.url} was away a moment ago")
        try:
            return Claim.from_json(_json(self._send("/leyden/v1/rollouts", content, patience, capped=True)))
        except GatewayUnavailableError:
            self._away_until = time.monotonic() + AWAY_S
            raise

    def claim(self, runner: str, limit: int, wait_s: float, patience_s: float | None = None) -> list[Claim]:
        """At most `limit` queued attempts, waiting up to `wait_s` for the first."""
        body = {"runner": runner, "limit": limit, "wait_s": wait_s}
        answer = _json(self._call("/leyden/v1/rollouts/claim", body, patience_s, timeout_s=wait_s + TIMEOUT_S))
        return [Claim.from_json(rollout) for rollout in answer.get("rollouts", [])]

    def heartbeat(self, claim: Claim) -> float:
        """Keep the attempt's lease, with one try; its seconds from now. Raises `AttemptOverError` when it is lost."""
        return float(_json(self._call(f"{_path(claim)}/heartbeat", {}, patience_s=0.0))["lease_s"])

    def end(self, claim: Claim, body: dict[str, Any]) -> None:
        """End the attempt. Raises `AttemptOverError` when it was ended otherwise before."""
        self._call(f"{_path(claim)}/end", body)

    def waiting(self) -> int:
        """How many attempts wait in the queue."""
        return int(self.ask("GET", "/leyden/v1/queue").get("queued", 0))

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        patience_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        """The answer of any route that may be asked again, or once without patience. Raises `GatewayError`."""
        patience = self.patience_s if patience_s is None else patience_s
        content = {"timeout": timeout_s} | ({} if body is None else {"json": body})
        return _json(self._send(path, content, patience, method=method))

    def export(self, payload: bytes) -> int:
        """Send an OTLP export request (protobuf); the number of spans that were rejected."""
        answer = self._send(
            "/v1/traces", {"content": payload, "headers": {"content-type": "application/x-protobuf"}}, self.patience_s
        )
        if not answer.headers.get("content-type", "").startswith("application/x-protobuf"):
            return 0
        return int(ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans)

    def close(self) -> None:
        """Drop the connections; calls that are waiting to try again fail at once."""
        self._closed.set()
        self._http.close()

    def after_fork(self) -> None:
        """In a forked child: connections are the parent's, so take new ones."""
        self._closed = threading.Event()
        self._away_until, self.failing = 0.0, False
        self._http = self._connect()

    def _connect(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_S, limits=limits, transport=self._transport
        )

    def _call(
        self, path: str, body: dict[str, Any], patience_s: float | None = None, timeout_s: float = TIMEOUT_S
    ) -> httpx.Response:
        patience = self.patience_s if patience_s is None else patience_s
        return self._send(path, {"json": body, "timeout": timeout_s}, patience)

    def _send(
        self, path: str, content: dict[str, Any], patience_s: float, *, method: str = "POST", capped: bool = False
    ) -> httpx.Response:
        """The gateway's 2xx answer. Raises `GatewayUnavailableError`, `GatewayRefusedError`, `AttemptOverError`."""
        backoff = Backoff(patience_s)
        while True:
            retry_after = None
            if self._closed.is_set():
                raise GatewayUnavailableError("the connection to the gateway was closed")
            if capped:
                content = content | {"timeout": min(TIMEOUT_S, max(backoff.left_s, MIN_TRY_S))}
            try:
                with _unobserved():
                    answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    self.failing = False
                    return _accepted(answer)
                problem = f"the gateway answered {answer.status_code}: {_message(answer)}"
                retry_after = _retry_after(answer)
            self.failing = True
            delay = backoff.next(retry_after)
            if delay is None or self._closed.wait(delay):
                raise GatewayUnavailableError(f"{self.url}{path} gave no answer to rely on; the last: {problem}")


@contextmanager
def _unobserved() -> Iterator[None]:
    """Our own requests make no spans, whichever instrumentation of HTTP the agent has."""
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
    raise kind(answer.status_code, _message(answer))


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise GatewayError(f"the gateway's answer is not JSON: {answer.text[:200]!r}") from error
    if not isinstance(document, dict):
        raise GatewayError(f"the gateway's answer is not a JSON object: {answer.text[:200]!r}")
    return document


def _message(answer: httpx.Response) -> str:
    """What an error says, in the shapes of the gateway's APIs; as much of anything else as helps."""
    try:
        return str(answer.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500] or answer.reason_phrase


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds; the header's other form, a date, is not used by our gateway and is ignored."""
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
