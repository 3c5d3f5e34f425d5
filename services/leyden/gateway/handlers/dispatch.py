"""One call to one of several servers: who is asked, who next, and when it is given up. Before the first byte only.

A server that cannot be reached, answers 429 or 503, or with another version than asked for is passed over for the next
one at once; when all were asked, the next round begins after a random wait. What a server has begun to answer is final.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from leyden.clock import Clock
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.resilience import RETRIED_STATUSES, Retries, RetryRules, retry_after_s
from leyden.gateway.core.upstreams import Timeouts
from leyden.gateway.handlers.places import Places, Visit
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.metrics import RETRIES, TRIES, labelled
from leyden.gateway.ports import EngineBroke, EngineReply, Engines, EngineUnreachable

DOWN_STATUSES = frozenset({502, 503, 504})
"""Statuses by which a server, or the proxy in front of it, says that it cannot work; a 500 may be about one request."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that may answer a call, and how it is asked."""

    place: str
    owner: str
    """The policy or the upstream: the label of metrics."""
    url: str
    body: Callable[[], bytes]
    headers: Mapping[str, str]
    timeouts: Timeouts
    max_in_flight: int
    check: Callable[[OpenCall, EngineReply], str | None]
    """Notes what a good answer says of itself; gives what is wrong with it, if anything."""


Plan = Callable[[], Iterable[Target]]
"""The servers, best first, as they stand at this moment; at least one."""


@dataclass(frozen=True, slots=True)
class Vain:
    """A server was asked in vain, and another may be."""

    reason: str
    final: Callable[[], Awaitable[Exception]]
    """Records the call, and gives what its caller is told, where no other is asked."""
    wanted_s: float = 0.0
    """The pause that the server wants, in seconds."""
    reply: EngineReply | None = None


class Seat:
    """Where a call is at this moment; `leave` is what its end calls."""

    def __init__(self) -> None:
        self.visit: Visit | None = None

    def leave(self, whole: bool | None = None) -> None:
        """The call is at no server any more; its answer came `whole`, or broke off, or nobody waited for its end."""
        if self.visit is not None:
            if whole is not None:
                self.visit.ended(whole)
            self.visit.leave()


class Dispatcher:
    """Asks servers for calls; all calls share what it knows of the servers."""

    def __init__(
        self,
        engines: Engines,
        places: Places,
        rules: RetryRules,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        retry_after_s: float = 1.0,
    ) -> None:
        self._engines = engines
        self._places = places
        self._rules = rules
        self._clock = clock
        self._chance = chance
        self._retry_after_s = retry_after_s

    def first(self, plan: Plan) -> Target:
        """The best server that may be asked now. Raises the plan's `Refusal`; 503 when none has room or is up."""
        target = self._free(plan(), ())
        if target is not None:
            return target
        targets = list(plan())
        owner = targets[0].owner
        pauses = [self._places.opens_in_s(target.place) for target in targets]
        if all(pauses):
            message = f"every server of `{owner}` is down and set aside for a moment"
            raise Refusal(503, "circuit_open", message, retry_after_s=min(pauses))
        raise Refusal(503, "upstream_full", f"`{owner}` has no room", retry_after_s=self._retry_after_s)

    async def ask(self, call: OpenCall, seat: Seat, target: Target, plan: Plan) -> None:
        """Ask `target`, then others of `plan`, until one has begun a good answer: `call.reply` then.

        Raises what the caller is told when none did: the call is recorded by then. Cancelled, it lets go of everything.
        """
        retries = Retries(self._rules, call.sent.started + target.timeouts.total_s)
        tried: dict[str, float] = {}
        broken = 0
        while vain := await self._try(call, seat, target, retries, broken):
            tried[target.place] = vain.wanted_s
            broken += vain.reason == "broke"
            following = await self._following(call, vain, plan, tried, retries, seat)
            if following is None:
                raise await vain.final()
            RETRIES.labels(target=target.owner, reason=vain.reason).inc()
            target = following

    async def _following(
        self, call: OpenCall, vain: Vain, plan: Plan, tried: dict[str, float], retries: Retries, seat: Seat
    ) -> Target | None:
        """Who is asked next, after the wait that this takes: what was in vain is let go of. None when nobody is.

        `tried` is the servers of this round with the pause that each wants. A new one begins when the longest is over;
        those that want more than is waited for are left out of it.
        """
        now = time.perf_counter()
        if retries.may_go_on(now) and (elsewhere := self._free(_now(plan), tried)):
            _let_go(vain, seat)
            return elsewhere
        if vain.reason == "mismatch":
            return None
        waited_for = {place: wanted for place, wanted in tried.items() if retries.waits_for(wanted)}
        wait = retries.wait_s(now, self._chance(), max(waited_for.values())) if waited_for else None
        if wait is None:
            return None
        _let_go(vain, seat)
        await asyncio.sleep(wait)
        for place in waited_for:
            del tried[place]
        if again := self._free(_now(plan), tried):
            return again
        text = f"no server of `{call.sent.prepared.model}` could take the call ({vain.reason})"
        raise await call.failure(503, "model_unreachable", text)

    def _free(self, targets: Iterable[Target], tried: Container[str]) -> Target | None:
        for target in targets:
            room = self._places.load.get(target.place, 0) < target.max_in_flight
            if target.place not in tried and room and self._places.opens_in_s(target.place) == 0:
                return target
        return None

    async def _try(self, call: OpenCall, seat: Seat, target: Target, retries: Retries, broken: int) -> Vain | None:
        """Ask one server; None when it has begun a good answer. Raises what is final."""
        retries.begin()
        visit = seat.visit = self._places.enter(target.place)
        bounds = replace(target.timeouts, total_s=max(retries.left_s(time.perf_counter()), 0.001))
        try:
            reply = await self._engines.post(target.url, target.body(), target.headers, bounds)
        except EngineUnreachable:
            visit.failed()
            _count(target, "unreachable")
            text = f"no server of `{call.sent.prepared.model}` can be reached"
            return Vain("unreachable", lambda: call.failure(503, "model_unreachable", text))
        except EngineBroke as error:
            visit.failed()
            _count(target, "timeout" if error.timed_out else "broke")
            broke = error
            if error.timed_out or broken:
                raise await call.breakage(error) from error
            return Vain("broke", lambda: call.breakage(broke))
        return await self._judged(call, visit, target, reply)

    async def _judged(self, call: OpenCall, visit: Visit, target: Target, reply: EngineReply) -> Vain | None:
        call.reply = reply
        if reply.status == 200:
            visit.begun()
        elif reply.status in DOWN_STATUSES:
            visit.failed()
        else:
            visit.answered()
        if reply.status != 200:
            _count(target, f"status_{reply.status}" if reply.status in RETRIED_STATUSES else "error")
            if reply.status not in RETRIED_STATUSES:
                raise await call.engine_error()
            wanted = retry_after_s(reply.headers.get("retry-after"), self._clock.now())
            return Vain(f"status_{reply.status}", call.engine_error, wanted, reply)
        if wrong := target.check(call, reply):
            _count(target, "mismatch")
            return Vain("mismatch", lambda: call.failure(502, "policy_version_mismatch", wrong), reply=reply)
        _count(target, "ok")
        return None


def _let_go(vain: Vain, seat: Seat) -> None:
    seat.leave()
    if vain.reply is not None:
        vain.reply.close()


def _now(plan: Plan) -> Iterable[Target]:
    """The servers as they stand now: a replica may have come, gone or changed its version since the last look."""
    try:
        return plan()
    except Refusal:
        return ()


def _count(target: Target, outcome: str) -> None:
    labelled(TRIES, target.owner, outcome).inc()
