"""Model calls: checked, routed, sent to an engine. What comes back is `handlers.reply`'s."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from leyden.clock import Clock
from leyden.engine_face import CONTINUE_FIELD
from leyden.gateway.core.faces import CHAT, Face
from leyden.gateway.core.request import NOBODY, Agent, Binding, Dialect, JsonDict, Prepared, TruncatedSampling, prepare
from leyden.gateway.core.routing import ModelName
from leyden.gateway.core.upstreams import Upstream, passed_on
from leyden.gateway.handlers.continuing import Continuations, Turn
from leyden.gateway.handlers.dispatch import Dispatcher, Seat
from leyden.gateway.handlers.recorder import Recorder, late
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.handlers.sent import Sent
from leyden.gateway.handlers.targets import Targets
from leyden.gateway.metrics import OVERRIDDEN, VERSION_MOVES
from leyden.gateway.ports import RolloutStore


@dataclass(frozen=True, slots=True)
class Incoming:
    """A model call as it came in."""

    route: str
    body: JsonDict
    binding: Binding
    agent: Agent = NOBODY
    face: Face = CHAT
    asked: JsonDict = field(default_factory=dict)
    """The caller's own body, before the face translated it to `body`, the chat request."""


class ModelCalls:
    """Opens calls. Everything that can be refused is refused before an engine is asked."""

    def __init__(
        self,
        targets: Targets,
        dispatcher: Dispatcher,
        store: RolloutStore,
        recorder: Recorder,
        clock: Clock,
        new_id: Callable[[], str],
        truncated: TruncatedSampling = TruncatedSampling.OVERRIDE,
        sticky: bool = False,
        continuations: Continuations | None = None,
    ) -> None:
        self._targets = targets
        self._dispatcher = dispatcher
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._new_id = new_id
        self._truncated = truncated
        self._sticky = sticky
        self._continuations = continuations

    async def open(self, incoming: Incoming) -> OpenCall:
        """Check the call and ask an engine; returns when the answer's head is here and is a good one.

        Raises `Refusal` for what the gateway refuses and `Failed` for what the engine answered (recorded by then).
        """
        started_at, started = self._clock.now(), time.perf_counter()
        self._recorder.must_be_up()
        upstream = self._targets.upstream_of(incoming.body.get("model"))
        prepared = await self._prepared(incoming, upstream)
        name = ModelName.parse(prepared.model) if upstream is None else ModelName(prepared.model)
        turn = await self._turn(incoming, prepared, name) if upstream is None else None
        sent = self._sent(incoming, prepared, name, upstream, turn, started_at, started)
        kept = await self._kept(sent)
        plan = self._targets.plan(sent, upstream, kept)
        target = self._dispatcher.first(plan)
        for parameter in prepared.overridden:
            OVERRIDDEN.labels(parameter=parameter).inc()
        seat = Seat()
        call = OpenCall(sent, None, self._recorder, seat.leave)
        try:
            await self._dispatcher.ask(call, seat, target, plan)
            await self._keep(call, kept)
        except BaseException as error:
            call.give_up(error)
            raise
        return call

    def _sent(
        self,
        incoming: Incoming,
        prepared: Prepared,
        name: ModelName,
        upstream: Upstream | None,
        turn: Turn | None,
        started_at: datetime,
        started: float,
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
            face=incoming.face,
            asked=incoming.asked,
            upstream=upstream.name if upstream else None,
            turn=turn,
        )

    async def _turn(self, incoming: Incoming, prepared: Prepared, name: ModelName) -> Turn | None:
        """The call's place in its attempt's conversation, put into what the engine is sent."""
        prepared.body.pop(CONTINUE_FIELD, None)  # what a caller sends under that name is not for the engine
        if self._continuations is None or incoming.face.dialect is not Dialect.CHAT:
            return None
        turn = await self._continuations.turn(incoming.binding.attempt, name.policy, prepared.body)
        if turn is not None:
            prepared.body[CONTINUE_FIELD] = turn.wish()
        return turn

    async def _prepared(self, incoming: Incoming, upstream: Upstream | None) -> Prepared:
        mode, ref = None, incoming.binding.attempt
        if ref is not None:
            standing = await self._store.standing(ref)
            if not standing.open:
                raise late(ref)
            mode = standing.mode
        if upstream is not None:
            return passed_on(incoming.body)
        return prepare(incoming.body, mode == "train", self._truncated, incoming.face.dialect)

    async def _kept(self, sent: Sent) -> int | None:
        """The version that the call's rollout keeps to, where it names none itself."""
        ref = sent.binding.attempt
        if not self._sticks(sent) or ref is None:
            return None
        return await self._store.kept_version(ref, sent.name.policy)

    async def _keep(self, call: OpenCall, kept: int | None) -> None:
        """The version that answered is the rollout's from now on, in place of `kept`, which is no longer live."""
        ref = call.sent.binding.attempt
        if self._sticks(call.sent) and ref is not None and call.version is not None and call.version != kept:
            await self._store.keep_version(ref, call.sent.name.policy, call.version, kept)
            if kept is not None:
                VERSION_MOVES.inc()

    def _sticks(self, sent: Sent) -> bool:
        return self._sticky and sent.upstream is None and sent.name.version is None
