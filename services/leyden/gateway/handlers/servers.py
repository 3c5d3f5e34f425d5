"""Sends one call to one of several servers, with retries before the first byte.

If a server cannot be reached, answers 429 or 503, or answers as another version, the next one is tried at once. When
all were tried, the next round begins after a random wait. A reply that has begun is final.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import orjson

from leyden.clock import Clock
from leyden.engine_face import VERSION_HEADER
from leyden.gateway.core.faces.openai import message_of
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.reply import CALLER_LEFT
from leyden.gateway.core.resilience import RETRIED_STATUSES, Circuit, CircuitRules, CircuitState, Retries, RetryRules
from leyden.gateway.core.routing import ENGINE_AWAY_S, Endpoint, RoutedCall, Router, WrongVersionError
from leyden.gateway.core.upstreams import Timeouts
from leyden.gateway.handlers.admission import CallsInFlight
from leyden.gateway.metrics import CIRCUIT_OPENED, CIRCUIT_STATE, RETRIES, TRIES, labelled
from leyden.gateway.ports import EngineBroke, EngineReply, Engines, EngineUnreachable
from leyden.retry_after import retry_after_s

ATTEMPT_OVER = f"{CALLER_LEFT} its attempt ended before the answer did"
DOWN_STATUSES = frozenset({502, 503, 504})
"""Statuses of a server, or its proxy, that cannot work. 500 is not one, as it may be about one request."""
STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 0.5, CircuitState.OPEN: 1}


class EngineError(Exception):
    """The engine answered with an error, which is returned to the caller unchanged."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        super().__init__(f"engine answered {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.request_id: str | None = None
        """The call's id, set by whoever knows it."""


class CallFailed(Exception):  # noqa: N818 - the result of one call, not a fault of ours
    """An engine gave no usable reply. Says how the call is recorded and what its caller gets."""

    def __init__(self, error: str, told: Refusal | EngineError, outcome: str = "engine_error") -> None:
        super().__init__(error)
        self.error = error
        self.told = told
        self.outcome = outcome
        """The label of metrics."""


def call_failed(status: int, code: str, message: str) -> CallFailed:
    """A failure that the caller gets as a `Refusal`."""
    refusal = Refusal(status, code, message, retry_after_s=ENGINE_AWAY_S if status == 503 else None)
    return CallFailed(f"{code}: {message}", refusal, "version_mismatch" if "mismatch" in code else "engine_error")


def broken_off(error: EngineBroke) -> CallFailed:
    """The engine gave no complete reply: 502 or 504."""
    status, code = (504, "engine_timeout") if error.timed_out else (502, "engine_broke")
    return call_failed(status, code, str(error))


@dataclass(frozen=True, slots=True)
class Answer:
    """A usable reply whose head was received. Read its body from `reply`, once."""

    reply: EngineReply
    version: int | None = None
    """The policy version that answers; None for an upstream."""
    answers_as: str | None = None
    """The `model` that every piece must name, if the version is served as an adapter."""
    begin: Callable[[], None] = lambda: None
    """To be called when the body's first piece is there: the call no longer counts as waiting for the model."""


@dataclass(frozen=True, slots=True)
class FailedTry:
    """One failed try. Another server may be tried, unless it is `final`."""

    reason: str
    failure: CallFailed | None = None
    """The call's failure if no other server is tried; None: the error in `reply`."""
    reply: EngineReply | None = None
    wanted_s: float = 0.0
    """The server's `Retry-After`, in seconds."""
    final: bool = False


class Slot:
    """One call at one server, counted as in flight while held. Reports its result to the circuit once."""

    def __init__(self, circuit: "_Shown", ticket: int) -> None:
        self._circuit = circuit
        self._ticket = ticket
        self._settled = False

    def answered(self) -> None:
        """The server is up, whatever it answered."""
        self._settled = True
        self._circuit.tell(lambda circuit, _: circuit.succeeded(self._ticket))

    def begun(self) -> None:
        """The server has begun a usable reply; `answered` or `broke` follows at its end."""
        self._settled = True
        self._circuit.tell(self._begin)

    def _begin(self, circuit: Circuit, _: float) -> None:
        self._ticket = circuit.begun(self._ticket)

    def broke(self) -> None:
        """The server broke off its reply."""
        self._circuit.tell(lambda circuit, now: circuit.broke(self._ticket, now))

    def failed(self) -> None:
        """The server is down or cannot work."""
        self._settled = True
        self._circuit.tell(lambda circuit, now: circuit.failed(self._ticket, now))

    def release(self) -> None:
        """The call is over. If it says nothing about the server, another call may try it."""
        if not self._settled:
            self._circuit.tell(lambda circuit, _: circuit.let_go(self._ticket))


class _Shown:
    """A circuit with a metric of its state."""

    def __init__(self, server: str, circuit: Circuit, now: Callable[[], float]) -> None:
        self._server = server
        self._now = now
        self.circuit = circuit
        self._show()

    def tell(self, outcome: Callable[[Circuit, float], None]) -> None:
        """Report a call's result to the circuit."""
        before = self.circuit.state
        outcome(self.circuit, self._now())
        if self.circuit.state is not before:
            self._show()
            if self.circuit.state is CircuitState.OPEN:
                CIRCUIT_OPENED.labels(server=self._server).inc()

    def begin(self) -> int:
        """The ticket of a call to the server."""
        before = self.circuit.state
        ticket = self.circuit.begin(self._now())
        if self.circuit.state is not before:
            self._show()
        return ticket

    def _show(self) -> None:
        CIRCUIT_STATE.labels(server=self._server).set(STATES[self.circuit.state])


class Servers:
    """What this gateway knows of its servers: calls in flight, and circuits.

    A server's name is `<policy>/<replica>` or that of an upstream. An unknown server counts as up and idle.
    """

    def __init__(self, rules: CircuitRules, now: Callable[[], float]) -> None:
        self._rules = rules
        self._now = now
        self._circuits: dict[str, _Shown] = {}
        self._load: Counter[str] = Counter()

    @property
    def load(self) -> Mapping[str, int]:
        """Calls in flight by server."""
        return self._load

    def opens_in_s(self, server: str) -> float:
        """Seconds until a server may be tried; 0 means now."""
        shown = self._circuits.get(server)
        return shown.circuit.opens_in_s(self._now()) if shown else 0.0

    @contextmanager
    def slot(self, server: str) -> Iterator[Slot]:
        """Count a call to a server as in flight until the block ends."""
        shown = self._circuits.get(server)
        if shown is None:
            shown = self._circuits[server] = _Shown(server, Circuit(self._rules), self._now)
        self._load[server] += 1
        slot = Slot(shown, shown.begin())
        try:
            yield slot
        finally:
            self._load[server] -= 1
            if not self._load[server]:
                del self._load[server]
            slot.release()

    def reported(self, server: str) -> None:
        """A server reported that it is up."""
        if shown := self._circuits.get(server):
            shown.tell(lambda circuit, _: circuit.reset())


class Dispatcher:
    """Sends calls to servers; all calls share its knowledge of the servers."""

    def __init__(
        self,
        *,
        engines: Engines,
        router: Router,
        servers: Servers,
        rules: RetryRules,
        clock: Clock,
        in_flight: CallsInFlight,
        chance: Callable[[], float] = random.random,
        retry_after_s: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engines = engines
        self._router = router
        self._servers = servers
        self._rules = rules
        self._clock = clock
        self._in_flight = in_flight
        self._chance = chance
        self._retry_after_s = retry_after_s
        self._sleep = sleep

    def first(self, call: RoutedCall) -> Endpoint:
        """The best available server. Raises `Refusal` of routing; 503 if none is up or has capacity."""
        endpoint = self._free(self._router.endpoints(call, self._servers.load), ())
        if endpoint is not None:
            return endpoint
        pauses = [self._servers.opens_in_s(e.server) for e in self._router.endpoints(call, self._servers.load)]
        if all(pauses):
            message = f"every server of `{call.owner}` is down and set aside for a moment"
            raise Refusal(503, "circuit_open", message, retry_after_s=min(pauses))
        raise Refusal(503, "upstream_full", f"`{call.owner}` has no room", retry_after_s=self._retry_after_s)

    @asynccontextmanager
    async def ask(self, call: RoutedCall, endpoint: Endpoint) -> AsyncIterator[Answer]:
        """Try `endpoint`, then others, until one has begun a usable reply, which is held until the block ends.

        Raises `CallFailed` if none did, or the attempt ended first. If the block raises `EngineBroke`, the server broke
        off; if it ends, the reply was complete; anything else says nothing about the server.
        """
        binding = call.binding
        with self._in_flight.listed(call.call_id, binding.attempt, call.prepared.model, binding.caller.project) as one:
            try:
                async with self._asked(call, endpoint) as answer:
                    yield replace(answer, begin=one.begin)
            except asyncio.CancelledError:
                if (over := one.refusal()) is None:
                    raise
                raise CallFailed(ATTEMPT_OVER, over, "cut_off") from None

    @asynccontextmanager
    async def _asked(self, call: RoutedCall, endpoint: Endpoint) -> AsyncIterator[Answer]:
        retries = Retries(self._rules, call.started + endpoint.timeouts.total_s)
        tried: dict[str, float] = {}
        broken = 0
        while True:
            async with self._one_try(call, endpoint, retries, broken) as outcome:
                if isinstance(outcome, Answer):
                    yield outcome
                    return
                tried[endpoint.server] = outcome.wanted_s
                broken += outcome.reason == "broke"
                following, wait = self._following(call, outcome, tried, retries)
                if following is None and wait is None:
                    raise await _failure_of(outcome)
            reason = outcome.reason
            if wait is not None:
                await self._sleep(wait)
                for server in [server for server, wanted in tried.items() if retries.waits_for(wanted)]:
                    del tried[server]
                following = self._free(self._now(call), tried)
            if following is None:
                text = f"no server of `{call.prepared.model}` could take the call ({reason})"
                raise call_failed(503, "model_unreachable", text)
            RETRIES.labels(target=endpoint.owner, reason=reason).inc()
            endpoint = following

    def _following(
        self, call: RoutedCall, failed: FailedTry, tried: Mapping[str, float], retries: Retries
    ) -> tuple[Endpoint | None, float | None]:
        """The next server to try at once, or the seconds until the next round; neither if the call has failed.

        `tried` has the servers of this round with their `Retry-After`. A new round begins after the longest one;
        servers whose `Retry-After` is above the limit are left out of it.
        """
        now = time.perf_counter()
        if failed.final:
            return None, None
        if retries.may_go_on(now) and (elsewhere := self._free(self._now(call), tried)):
            return elsewhere, None
        pauses = [wanted for wanted in tried.values() if retries.waits_for(wanted)]
        if failed.reason == "mismatch" or not pauses:
            return None, None
        return None, retries.wait_s(now, self._chance(), max(pauses))

    def _free(self, endpoints: Iterable[Endpoint], tried: Container[str]) -> Endpoint | None:
        for one in endpoints:
            room = self._servers.load.get(one.server, 0) < one.max_in_flight
            if one.server not in tried and room and self._servers.opens_in_s(one.server) == 0:
                return one
        return None

    def _now(self, call: RoutedCall) -> Iterable[Endpoint]:
        """The current servers: replicas may have come, gone or changed versions in the meantime."""
        try:
            return self._router.endpoints(call, self._servers.load)
        except Refusal:
            return ()

    @asynccontextmanager
    async def _one_try(
        self, call: RoutedCall, endpoint: Endpoint, retries: Retries, broken: int
    ) -> AsyncIterator[Answer | FailedTry]:
        """Try one server; its slot and reply are released when the block ends."""
        retries.begin()
        bounds = replace(endpoint.timeouts, total_s=max(retries.left_s(time.perf_counter()), 0.001))
        with self._servers.slot(endpoint.server) as slot:
            outcome = await self._post(call, endpoint, bounds, slot, broken)
            try:
                yield outcome
                if isinstance(outcome, Answer):
                    slot.answered()
            except EngineBroke as error:
                if error.is_down and isinstance(outcome, Answer):
                    slot.broke()
                raise
            finally:
                if outcome.reply is not None:
                    outcome.reply.close()

    async def _post(
        self, call: RoutedCall, endpoint: Endpoint, bounds: Timeouts, slot: Slot, broken: int
    ) -> Answer | FailedTry:
        try:
            reply = await self._engines.post(endpoint.url, endpoint.body(call), endpoint.headers, bounds)
        except EngineUnreachable:
            slot.failed()
            labelled(TRIES, endpoint.owner, "unreachable").inc()
            text = f"no server of `{call.prepared.model}` can be reached"
            return FailedTry("unreachable", call_failed(503, "model_unreachable", text))
        except EngineBroke as error:
            slot.failed()
            labelled(TRIES, endpoint.owner, "timeout" if error.timed_out else "broke").inc()
            return FailedTry("broke", broken_off(error), final=error.timed_out or broken > 0)
        outcome = self._judged(endpoint, reply, slot)
        if isinstance(outcome, Answer):
            labelled(TRIES, endpoint.owner, "ok").inc()
        else:
            labelled(TRIES, endpoint.owner, outcome.reason).inc()
        return outcome

    def _judged(self, endpoint: Endpoint, reply: EngineReply, slot: Slot) -> Answer | FailedTry:
        if reply.status == 200:
            slot.begun()
            try:
                return Answer(reply, *endpoint.answer_of(reply.headers.get(VERSION_HEADER, "")))
            except WrongVersionError as error:
                return FailedTry("mismatch", call_failed(502, "policy_version_mismatch", str(error)), reply)
        if reply.status in DOWN_STATUSES:
            slot.failed()
        else:
            slot.answered()
        if reply.status not in RETRIED_STATUSES:
            return FailedTry("error", reply=reply, final=True)
        wanted = retry_after_s(reply.headers.get("retry-after"), self._clock.now())
        return FailedTry(f"status_{reply.status}", reply=reply, wanted_s=wanted)


async def _failure_of(failed: FailedTry) -> CallFailed:
    """The call's failure: that of the try, or the engine's own error, unchanged."""
    reply = failed.reply
    if failed.failure is not None or reply is None:
        assert failed.failure is not None
        return failed.failure
    try:
        body = await reply.read()
    except EngineBroke as error:
        return broken_off(error)
    try:
        text = message_of(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body[:500].decode("utf-8", "replace")
    told = EngineError(reply.status, body, reply.headers.get("retry-after"))
    return CallFailed(f"engine {reply.status}: {text}", told)
