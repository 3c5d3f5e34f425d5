"""Model calls: checked, routed, sent to an engine. What comes back is `handlers.reply`'s."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from leyden.clock import Clock
from leyden.events import PolicyServed
from leyden.gateway.core.agent import NOBODY, Agent
from leyden.gateway.core.binding import Binding
from leyden.gateway.core.prepare import JsonDict, Prepared, TruncatedSampling, prepare
from leyden.gateway.core.routing import ModelName, RoutingTable
from leyden.gateway.handlers.recorder import Recorder, late
from leyden.gateway.handlers.reply import OpenCall, Sent
from leyden.gateway.metrics import CONNECT_RETRIES, OVERRIDDEN
from leyden.gateway.ports import EngineBroke, EngineReply, Engines, EngineUnreachable, RolloutStore

VERSION_HEADER = "x-leyden-policy-version"
Load = Counter[tuple[str, str]]
"""(policy, replica) → calls in flight from this gateway."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A model call as it came in."""

    route: str
    body: JsonDict
    binding: Binding
    agent: Agent = NOBODY


class ModelCalls:
    """Opens calls. Everything that can be refused is refused before an engine is asked."""

    def __init__(
        self,
        table: RoutingTable,
        engines: Engines,
        store: RolloutStore,
        recorder: Recorder,
        clock: Clock,
        new_id: Callable[[], str],
        truncated: TruncatedSampling = TruncatedSampling.OVERRIDE,
    ) -> None:
        self._table = table
        self._engines = engines
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._new_id = new_id
        self._truncated = truncated
        self._load: Load = Counter()

    async def open(self, incoming: Incoming) -> OpenCall:
        """Check the call and ask an engine; returns when the answer's head is here and is a good one.

        Raises `Refusal` for what the gateway refuses and `Failed` for what the engine answered (recorded by then).
        """
        started_at, started = self._clock.now(), time.perf_counter()
        self._recorder.must_be_up()
        prepared = await self._prepared(incoming)
        name = ModelName.parse(prepared.model)
        candidates = self._table.candidates(name, self._load)
        for parameter in prepared.overridden:
            OVERRIDDEN.labels(parameter=parameter).inc()
        sent = self._sent(incoming, prepared, name, started_at, started)
        for replica in candidates:
            if call := await self._try(sent, replica):
                return call
        raise await OpenCall(sent, None, self._recorder).failure(
            503, "model_unreachable", f"no replica of `{name}` can be reached"
        )

    def _sent(
        self, incoming: Incoming, prepared: Prepared, name: ModelName, started_at: datetime, started: float
    ) -> Sent:
        return Sent(
            call_id=self._new_id(),
            route=incoming.route,
            request=incoming.body,
            binding=incoming.binding,
            agent=incoming.agent,
            prepared=prepared,
            name=name,
            started_at=started_at,
            started=started,
        )

    async def _prepared(self, incoming: Incoming) -> Prepared:
        ref = incoming.binding.attempt
        if ref is None:
            return prepare(incoming.body, False, self._truncated)
        standing = await self._store.standing(ref)
        if not standing.open:
            raise late(ref)
        return prepare(incoming.body, standing.mode == "train", self._truncated)

    async def _try(self, sent: Sent, replica: PolicyServed) -> OpenCall | None:
        """Ask one replica; None when it cannot be reached."""
        place = (replica.policy, replica.replica)
        self._load[place] += 1

        def done() -> None:
            self._load[place] -= 1

        call = OpenCall(sent, None, self._recorder, done)
        try:
            body = orjson.dumps(sent.prepared.body | {"model": replica.model})
            url = f"{replica.endpoint.rstrip('/')}/v1/chat/completions"
            reply = await self._engines.post(url, body, _headers(sent))
        except EngineUnreachable:
            CONNECT_RETRIES.inc()
            call.close()
            return None
        except EngineBroke as error:
            raise await call.breakage(error) from error
        except BaseException as error:
            call.give_up(error)
            raise
        call.reply = reply
        await self._accepted(call, reply, sent.name)
        return call

    async def _accepted(self, call: OpenCall, reply: EngineReply, name: ModelName) -> None:
        """Refuse an answer that is no answer, or whose version is not what was asked for: the engine's word counts."""
        try:
            if reply.status != 200:
                raise await call.engine_error()
            served = ModelName.parse(reply.headers.get(VERSION_HEADER, ""))
            if served.policy != name.policy or served.version is None or name.version not in (None, served.version):
                said = reply.headers.get(VERSION_HEADER) or "no version"
                raise await call.failure(
                    502, "policy_version_mismatch", f"`{name}` was asked for and the engine says {said}"
                )
            call.version = served.version
        except BaseException as error:
            call.give_up(error)
            raise


def _headers(sent: Sent) -> Mapping[str, str]:
    headers = {"content-type": "application/json", "x-request-id": sent.call_id}
    return headers | ({"traceparent": sent.binding.traceparent} if sent.binding.traceparent else {})
