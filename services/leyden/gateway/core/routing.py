"""Chooses the servers of a call: replicas of a policy, or an upstream, in the order to try them.

Affinity is rendezvous hashing (Thaler, Ravishankar 1998: every key ranks every replica; adding or removing a replica
moves only its own keys) with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads",
arXiv:1608.01350): a replica with more than `BOUND` times the mean load is skipped, so that one popular prefix cannot
overload one replica while others are idle. All counts are of calls in flight from this gateway.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from itertools import groupby
from typing import Any
from urllib.parse import quote

import orjson

from leyden.engine_face import CONTINUE_HEADER, VERSION_HEADER
from leyden.events import PolicyPromoted, PolicyServed
from leyden.events.promotions import Promotion
from leyden.gateway.core.agents import Agent
from leyden.gateway.core.faces.openai import Face
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Api, Binding, JsonDict, Prepared
from leyden.gateway.core.upstreams import Timeouts, Upstream, Upstreams

CALL_HEADER = "x-leyden-call-id"
OVERRIDDEN_HEADER = "x-leyden-overridden"
LEFT_OUT_HEADER = "x-leyden-left-out"
UNTRAINED_HEADER = "x-leyden-untrained"
"""Why a call of a training rollout is not trained: fields that shape its distribution, content without tokens."""
UPSTREAM_HEADER = "x-leyden-upstream"
REPLY_IDS = {Api.CHAT: "chatcmpl", Api.COMPLETIONS: "cmpl", Api.EMBEDDINGS: "embd"}
"""Beginnings of the ids of replies."""
BOUND = 1.25
"""Limit of a replica's load relative to the mean (the paper's c). Smaller is more even, larger keeps more prefixes."""
FIRST_MESSAGES = 2
"""Number of first messages that identify a conversation without a rollout: usually system prompt and task."""


class Balance(StrEnum):
    """How calls are distributed over the replicas of a version."""

    LEAST_LOADED = "least_loaded"
    """Fewest calls in flight from this gateway."""
    PREFIX = "prefix"
    """Calls of a rollout, or with the same first messages, go to the same replica while its load allows."""


def least_loaded(servers: Sequence[str], load: Mapping[str, int]) -> list[str]:
    """Replicas by load, then by name."""
    return sorted(servers, key=lambda server: (load.get(server, 0), server))


def by_affinity(servers: Sequence[str], load: Mapping[str, int], key: str) -> list[str]:
    """Replicas in the order of `key`'s ranking; those at their bound come last, the least loaded first."""
    ranked = sorted(servers, key=lambda server: _weight(key, server), reverse=True)
    total = sum(load.get(server, 0) for server in servers)
    bound = math.ceil(BOUND * (total + 1) / len(servers)) if servers else 0
    free = [server for server in ranked if load.get(server, 0) < bound]
    return free + least_loaded([server for server in servers if server not in free], load)


def affinity_key(rollout_id: str | None, body: Mapping[str, Any]) -> str:
    """The key of a call's prefix: its rollout, else the beginning of its conversation or prompt."""
    if rollout_id is not None:
        return rollout_id
    messages = body.get("messages")
    head = messages[:FIRST_MESSAGES] if isinstance(messages, list) else str(body.get("prompt"))[:1024]
    return json.dumps(head, sort_keys=True, default=str)


def _weight(key: str, server: str) -> bytes:
    return blake2b(f"{key}\0{server}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


VERSION_DIGITS = 10
ENGINE_AWAY_S = 5.0
"""`Retry-After` while no replica is reachable; a restarting engine loads its model first."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """The policy in a request's `model`, with a version or None for the newest."""

    policy: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """`<policy>` or `<policy>@<version>`; a version has at most ten digits."""
        policy, at, number = text.rpartition("@")
        is_version = number.isascii() and number.isdigit() and len(number) <= VERSION_DIGITS
        return cls(policy, int(number)) if at and policy and is_version else cls(text)

    def __str__(self) -> str:
        return self.policy if self.version is None else f"{self.policy}@{self.version}"


MOST_NAMES = 5
"""Policies that the refusal of an unknown model names."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """One policy, as `GET /leyden/v1/policies` shows it."""

    policy: str
    promoted_version: int | None
    live_version: int | None
    """The lowest version among live replicas, which all have reached."""
    replicas: tuple[PolicyServed, ...]


class RoutingTable:
    """The newest `PolicyServed` of every replica, and the promotion of every policy that counts."""

    def __init__(self) -> None:
        self._served: dict[str, dict[str, PolicyServed]] = {}
        self._promoted: dict[str, Promotion] = {}

    def note_served(self, event: PolicyServed) -> None:
        """Set the version of a replica; the latest report wins."""
        self._served.setdefault(event.policy, {})[event.replica] = event

    def note_promoted(self, event: PolicyPromoted) -> None:
        """Set the promoted version (see `Promotion`)."""
        self._promoted.setdefault(event.policy, Promotion()).add(event)

    def knows(self, policy: str) -> bool:
        """Whether a policy of this name was ever promoted or served."""
        return policy in self._served or policy in self._promoted

    def candidates(
        self, name: ModelName, load: Mapping[str, int], kept: int | None = None, affinity: str | None = None
    ) -> list[PolicyServed]:
        """Replicas that may answer `name`, best first: by version, and within a version by load or by prefix.

        `load` is calls in flight by `server_of`. `kept` is a version to prefer to the newest while it is live;
        `affinity` is the key of the call's prefix, None to use the load only.

        Raises `Refusal`: 503 if the policy has no live replica or nothing is live, 404 for a version (or a policy,
        while others are live) that no replica serves.
        """
        replicas = self._served.get(name.policy, {})
        if not replicas:
            if self._served and name.policy not in self._promoted:
                served = ", ".join(sorted(self._served)[:MOST_NAMES])
                message = f"The model `{name}` does not exist. Served here: {served}."
                raise Refusal(404, "model_not_found", message, param="model")
            raise Refusal(503, "model_not_live", f"no replica serves `{name.policy}` yet", retry_after_s=ENGINE_AWAY_S)
        fitting = [r for r in replicas.values() if name.version in (None, r.version)]
        if not fitting:
            live = ", ".join(sorted({f"{name.policy}@{r.version}" for r in replicas.values()}))
            raise Refusal(404, "model_not_found", f"The model `{name}` is not live (live: {live}).", param="model")
        return list(_ranked(fitting, load, kept, affinity))

    def policies(self) -> Sequence[PolicyState]:
        """All known policies, by name."""
        return [self._state(policy) for policy in sorted(self._served.keys() | self._promoted.keys())]

    def _state(self, policy: str) -> PolicyState:
        replicas = tuple(sorted(self._served.get(policy, {}).values(), key=lambda r: r.replica))
        live = min((r.version for r in replicas), default=None)
        promoted = self._promoted[policy].version if policy in self._promoted else None
        return PolicyState(policy, promoted, live, replicas)


def server_of(replica: PolicyServed) -> str:
    """The name of a replica, for its load and circuit."""
    return f"{replica.policy}/{replica.replica}"


def _ranked(
    replicas: Sequence[PolicyServed], load: Mapping[str, int], kept: int | None, affinity: str | None
) -> Iterator[PolicyServed]:
    def newest(replica: PolicyServed) -> tuple[bool, int]:
        return replica.version != kept, -replica.version

    for _, equals in groupby(sorted(replicas, key=newest), key=newest):
        by_server = {server_of(replica): replica for replica in equals}
        servers = list(by_server)
        ranked = least_loaded(servers, load) if affinity is None else by_affinity(servers, load, affinity)
        yield from (by_server[server] for server in ranked)


@dataclass(frozen=True, slots=True)
class Incoming:
    """An admitted model call whose body was read."""

    face: Face
    asked: JsonDict
    """The caller's own body."""
    request: JsonDict
    """The equivalent chat request."""
    binding: Binding
    agent: Agent


@dataclass(frozen=True, slots=True)
class RoutedCall:
    """A checked call, with the request for a server."""

    call_id: str
    face: Face
    asked: JsonDict
    """The caller's own body."""
    request: JsonDict
    """The equivalent chat request, which is recorded."""
    binding: Binding
    agent: Agent
    prepared: Prepared
    body: JsonDict
    """The request to a server, except its `model`."""
    name: ModelName
    started_at: datetime
    started: float
    """`time.perf_counter()` at the arrival."""
    upstream: Upstream | None = None
    """The upstream that gets the call; None for a policy's call."""
    kept: int | None = None
    """The version that the call's rollout keeps to, if the call names none."""
    offers_tokens: bool = False
    """Whether the request has the tokens of an earlier call."""
    unseen: tuple[str, ...] = ()
    """Types of content in the request that the trainer cannot see."""

    @property
    def owner(self) -> str:
        """The policy or the upstream; the label of metrics."""
        return self.upstream.name if self.upstream else self.name.policy

    def served_model(self, version: int | None) -> str:
        """`<policy>@<version>` of the reply; for an upstream, the requested model."""
        return str(ModelName(self.name.policy, version))

    def answer_headers(self, version: int | None) -> dict[str, str]:
        """Headers of the reply, which is of `version`."""
        headers = {CALL_HEADER: self.call_id}
        if self.upstream is not None:
            headers[UPSTREAM_HEADER] = self.upstream.name
        else:
            headers[VERSION_HEADER] = self.served_model(version)
        if self.prepared.overridden:
            headers[OVERRIDDEN_HEADER] = ",".join(self.prepared.overridden)
        if left_out := self.face.left_out(self.asked):
            headers[LEFT_OUT_HEADER] = ",".join(map(quote, left_out))
        untrained = (*self.prepared.sampling.shaped_by, *self.unseen)
        if untrained and self.prepared.training:
            headers[UNTRAINED_HEADER] = ",".join(untrained)
        return headers

    @property
    def chat_id(self) -> str:
        """The reply's id at the engine's API, made of the call's: engines repeat ids, or send none."""
        return f"{REPLY_IDS[self.face.api]}-{self.call_id}"

    def headers(self) -> dict[str, str]:
        """Headers of the request to any server."""
        headers = {"content-type": "application/json", "x-request-id": self.call_id}
        if self.offers_tokens:
            headers[CONTINUE_HEADER] = "1"
        if self.binding.traceparent:
            headers["traceparent"] = self.binding.traceparent
        return headers


class WrongVersionError(Exception):
    """A server answered with another version than requested."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that may answer a call, and how to call it."""

    server: str
    """Its name, for load and circuit: `<policy>/<replica>`, or that of an upstream."""
    owner: str
    """The policy or the upstream; the label of metrics."""
    url: str
    model: str
    """The model's name at the server."""
    headers: Mapping[str, str]
    timeouts: Timeouts
    max_in_flight: int
    asked_for: ModelName | None = None
    """The policy, and the version if one is named, that must answer; None for an upstream."""

    def body(self, call: RoutedCall) -> bytes:
        """The body to send."""
        return orjson.dumps(call.body | {"model": self.model})

    def answer_of(self, said: str) -> tuple[int | None, str | None]:
        """(the version that answers, the `model` that every piece of its reply must name, if any).

        `said` is the version in the header. An engine that serves a version as an adapter (`policy@4`) must report that
        version: another one means that it lost the adapter and answered with the base weights. Raises
        `WrongVersionError`.
        """
        if self.asked_for is None:
            return None, None
        name, served = self.asked_for, ModelName.parse(said)
        served_as = ModelName.parse(self.model)
        is_adapter = served_as.policy == name.policy and served_as.version is not None
        wanted = served_as.version if name.version is None and is_adapter else name.version
        if served.policy != name.policy or served.version is None or wanted not in (None, served.version):
            asked = name if wanted is None else ModelName(name.policy, wanted)
            raise WrongVersionError(f"`{asked}` was asked for and the engine says {said or 'no version'}")
        return served.version, self.model if is_adapter else None


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """Settings of routing."""

    timeouts: Timeouts
    balance: Balance
    max_in_flight: int
    """Calls at a time at one replica from this gateway."""


class Router:
    """Endpoints of calls, from the routing table and the upstreams. Policies take precedence over upstreams."""

    def __init__(self, table: RoutingTable, upstreams: Upstreams, rules: RoutingRules) -> None:
        self._table = table
        self._upstreams = upstreams
        self._rules = rules

    def upstream_of(self, model: object) -> Upstream | None:
        """The upstream of a model name; None for a policy or an unknown name."""
        if not isinstance(model, str) or self._table.knows(ModelName.parse(model).policy):
            return None
        return self._upstreams.find(model)

    def endpoints(self, call: RoutedCall, load: Mapping[str, int]) -> Iterator[Endpoint]:
        """The servers that may answer a call now, best first; at least one. Raises `Refusal` if there is none.

        `load` is calls in flight by server.
        """
        if call.upstream is not None:
            return iter([_passed_on(call, call.upstream)])
        affinity = None
        if self._rules.balance is Balance.PREFIX:
            ref = call.binding.attempt
            affinity = affinity_key(ref.rollout_id if ref else None, call.body)
        replicas = self._table.candidates(call.name, load, call.kept, affinity)
        return (self._replica(call, replica) for replica in replicas)

    def _replica(self, call: RoutedCall, replica: PolicyServed) -> Endpoint:
        return Endpoint(
            server=server_of(replica),
            owner=replica.policy,
            url=f"{replica.endpoint.rstrip('/')}{call.face.upstream_route}",
            model=replica.model,
            headers=call.headers(),
            timeouts=self._rules.timeouts,
            max_in_flight=self._rules.max_in_flight,
            asked_for=call.name,
        )


def _passed_on(call: RoutedCall, upstream: Upstream) -> Endpoint:
    return Endpoint(
        server=upstream.name,
        owner=upstream.name,
        url=upstream.url(call.face.upstream_route),
        model=upstream.model(call.prepared.model),
        headers=upstream.headers | call.headers(),
        timeouts=upstream.timeouts,
        max_in_flight=upstream.entry.max_in_flight,
    )
