"""Which servers may answer a call, best first: the replicas of a policy, or the upstream of its model's name."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import orjson

from leyden.engine_face import CONTINUE_HEADER, VERSION_HEADER
from leyden.events import PolicyServed
from leyden.gateway.core.routing import Balance, ModelName, RoutingTable, affinity_key, place_of
from leyden.gateway.core.upstreams import Timeouts, Upstream, Upstreams
from leyden.gateway.handlers.dispatch import Plan, Target
from leyden.gateway.handlers.places import Places
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.handlers.sent import Sent
from leyden.gateway.ports import EngineReply


@dataclass(frozen=True, slots=True)
class RoutingKnobs:
    """How policies are routed."""

    timeouts: Timeouts
    balance: Balance
    max_in_flight: int
    """Calls at a time at one replica from this gateway."""


class Targets:
    """The routing table and the upstreams, as targets of calls. Policies win over upstreams of the same name."""

    def __init__(self, table: RoutingTable, upstreams: Upstreams, places: Places, knobs: RoutingKnobs) -> None:
        self._table = table
        self._upstreams = upstreams
        self._places = places
        self._knobs = knobs

    def upstream_of(self, model: object) -> Upstream | None:
        """The upstream that a model's name goes to; None when it is a policy's, or nobody's."""
        if not isinstance(model, str) or self._table.knows(ModelName.parse(model).policy):
            return None
        return self._upstreams.find(model)

    def plan(self, sent: Sent, upstream: Upstream | None, kept: int | None) -> Plan:
        """The servers for a call, `kept` being the version that its rollout keeps. The plan raises `Refusal`."""
        return partial(self._replicas, sent, kept) if upstream is None else partial(_passed_on, sent, upstream)

    def _replicas(self, sent: Sent, kept: int | None) -> Iterable[Target]:
        affinity = None
        if self._knobs.balance is Balance.PREFIX:
            ref = sent.binding.attempt
            affinity = affinity_key(ref.rollout_id if ref else None, sent.prepared.body)
        replicas = self._table.candidates(sent.name, self._places.load, kept, affinity)
        return (self._replica(sent, replica) for replica in replicas)

    def _replica(self, sent: Sent, replica: PolicyServed) -> Target:
        return Target(
            place=place_of(replica),
            owner=replica.policy,
            url=f"{replica.endpoint.rstrip('/')}{sent.face.upstream_route}",
            body=partial(_body, sent, replica.model),
            headers=_headers(sent),
            timeouts=self._knobs.timeouts,
            max_in_flight=self._knobs.max_in_flight,
            check=partial(_version_fault, sent.name, ModelName.parse(replica.model)),
        )


def _passed_on(sent: Sent, upstream: Upstream) -> Iterable[Target]:
    target = Target(
        place=upstream.name,
        owner=upstream.name,
        url=upstream.url(sent.face.upstream_route),
        body=partial(_body, sent, upstream.model(sent.prepared.model)),
        headers=upstream.headers | _headers(sent),
        timeouts=upstream.timeouts,
        max_in_flight=upstream.entry.max_in_flight,
        check=lambda _call, _reply: None,
    )
    return [target]


def _version_fault(name: ModelName, served_as: ModelName, call: OpenCall, reply: EngineReply) -> str | None:
    """What is wrong with the version that the engine says it answers with: its word counts, and is noted when right.

    An engine that serves a version under a name of its own (`policy@4`, an adapter) must say just that version: another
    one means that it forgot the adapter, and answered with the weights underneath.
    """
    said = reply.headers.get(VERSION_HEADER, "")
    served = ModelName.parse(said)
    wanted = name.version if name.version is not None or served_as.policy != name.policy else served_as.version
    if served.policy != name.policy or served.version is None or wanted not in (None, served.version):
        asked = name if wanted is None else ModelName(name.policy, wanted)
        return f"`{asked}` was asked for and the engine says {said or 'no version'}"
    call.version = served.version
    call.answers_as = str(served_as) if served_as.policy == name.policy and served_as.version is not None else None
    return None


def _body(sent: Sent, model: str) -> bytes:
    return orjson.dumps(sent.prepared.body | {"model": model})


def _headers(sent: Sent) -> dict[str, str]:
    headers = {"content-type": "application/json", "x-request-id": sent.call_id}
    if sent.turn is not None:
        headers[CONTINUE_HEADER] = "1"
    return headers | ({"traceparent": sent.binding.traceparent} if sent.binding.traceparent else {})
