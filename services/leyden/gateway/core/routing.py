"""Which engine answers for a policy: the newest report of every replica, and the order in which to try them.

Affinity is rendezvous hashing (Thaler, Ravishankar 1998: every key ranks every replica, and a replica that comes or
goes moves only its own keys) with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded
Loads", arXiv:1608.01350): a replica with more than `BOUND` times the mean load is passed over, so that one long prefix
cannot drown one replica while the others idle. All counts are of calls in flight from this gateway.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from itertools import groupby
from typing import Any

from leyden.events import PolicyPromoted, PolicyServed
from leyden.gateway.core.refusals import Refusal

BOUND = 1.25
"""How far above the mean a replica's load may be. The paper's c: smaller is more even, larger keeps more prefixes."""
FIRST_MESSAGES = 2
"""A conversation without a rollout is known by so many of its first messages: as a rule, the system's and the task."""


class Balance(StrEnum):
    """How calls are spread over the replicas of one version."""

    LEAST_LOADED = "least_loaded"
    """Fewest calls in flight from this gateway."""
    PREFIX = "prefix"
    """The calls of a rollout, or those with the same first messages, go to the same replica while it has room."""


def least_loaded(places: Sequence[str], load: Mapping[str, int]) -> list[str]:
    """Places by their load, ties by name."""
    return sorted(places, key=lambda place: (load.get(place, 0), place))


def by_affinity(places: Sequence[str], load: Mapping[str, int], key: str) -> list[str]:
    """Places as `key` ranks them, those that are at their bound last (the least loaded of these first)."""
    ranked = sorted(places, key=lambda place: _weight(key, place), reverse=True)
    total = sum(load.get(place, 0) for place in places)
    bound = math.ceil(BOUND * (total + 1) / len(places)) if places else 0
    free = [place for place in ranked if load.get(place, 0) < bound]
    return free + least_loaded([place for place in places if place not in free], load)


def affinity_key(rollout_id: str | None, body: Mapping[str, Any]) -> str:
    """What a call's prefix is known by: its rollout, else the beginning of its conversation or prompt."""
    if rollout_id is not None:
        return rollout_id
    messages = body.get("messages")
    head = messages[:FIRST_MESSAGES] if isinstance(messages, list) else str(body.get("prompt"))[:1024]
    return json.dumps(head, sort_keys=True, default=str)


def _weight(key: str, place: str) -> bytes:
    return blake2b(f"{key}\0{place}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


ENGINE_AWAY_S = 5.0
"""What `Retry-After` says while no replica can be reached: an engine that restarts loads its model first."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a request's `model` asks for: a policy, at a version or at whatever is newest."""

    policy: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """`<policy>` or `<policy>@<version>`."""
        policy, at, number = text.rpartition("@")
        return cls(policy, int(number)) if at and policy and number.isascii() and number.isdigit() else cls(text)

    def __str__(self) -> str:
        return self.policy if self.version is None else f"{self.policy}@{self.version}"


@dataclass(frozen=True, slots=True)
class PolicyState:
    """One policy as `GET /leyden/v1/policies` shows it."""

    policy: str
    promoted_version: int | None
    live_version: int | None
    """The lowest version that a live replica serves: what every replica has reached."""
    replicas: tuple[PolicyServed, ...]


class RoutingTable:
    """The newest `PolicyServed` of every replica, and the newest `PolicyPromoted` of every policy, in log order."""

    def __init__(self) -> None:
        self._served: dict[str, dict[str, PolicyServed]] = {}
        self._promoted: dict[str, int] = {}

    def note_served(self, event: PolicyServed) -> None:
        """A replica answers with a version now; the latest report wins, whatever its version."""
        self._served.setdefault(event.policy, {})[event.replica] = event

    def note_promoted(self, event: PolicyPromoted) -> None:
        """A version shall serve; the latest wins (a rollback is a promotion too)."""
        self._promoted[event.policy] = event.version

    def knows(self, policy: str) -> bool:
        """Whether a policy of this name was ever promoted or served."""
        return policy in self._served or policy in self._promoted

    def candidates(
        self, name: ModelName, load: Mapping[str, int], kept: int | None = None, affinity: str | None = None
    ) -> list[PolicyServed]:
        """Replicas that may answer `name`, best first: by version, and within a version by load or by prefix.

        `load` is calls in flight by `place_of`. `kept` is the version that comes before the newest while it is live;
        `affinity` is the key of the call's prefix, None to go by load alone.

        Raises `Refusal`: 503 when the policy has no live replica or nothing is live at all, 404 for a version (or a
        policy, while others are live) that nobody serves.
        """
        replicas = self._served.get(name.policy, {})
        if not replicas:
            if self._served and name.policy not in self._promoted:
                raise Refusal(404, "model_not_found", f"The model `{name}` does not exist.", param="model")
            raise Refusal(503, "model_not_live", f"no replica serves `{name.policy}` yet", retry_after_s=ENGINE_AWAY_S)
        fitting = [r for r in replicas.values() if name.version in (None, r.version)]
        if not fitting:
            live = ", ".join(sorted({f"{name.policy}@{r.version}" for r in replicas.values()}))
            raise Refusal(404, "model_not_found", f"The model `{name}` is not live (live: {live}).", param="model")
        return list(_ranked(fitting, load, kept, affinity))

    def policies(self) -> Sequence[PolicyState]:
        """Every policy that is known, by name."""
        return [self._state(policy) for policy in sorted(self._served.keys() | self._promoted.keys())]

    def _state(self, policy: str) -> PolicyState:
        replicas = tuple(sorted(self._served.get(policy, {}).values(), key=lambda r: r.replica))
        live = min((r.version for r in replicas), default=None)
        return PolicyState(policy, self._promoted.get(policy), live, replicas)


def place_of(replica: PolicyServed) -> str:
    """What a replica's load and circuit are known by."""
    return f"{replica.policy}/{replica.replica}"


def _ranked(
    replicas: Sequence[PolicyServed], load: Mapping[str, int], kept: int | None, affinity: str | None
) -> Iterator[PolicyServed]:
    def newest(replica: PolicyServed) -> tuple[bool, int]:
        return replica.version != kept, -replica.version

    for _, equals in groupby(sorted(replicas, key=newest), key=newest):
        by_place = {place_of(replica): replica for replica in equals}
        places = list(by_place)
        ranked = least_loaded(places, load) if affinity is None else by_affinity(places, load, affinity)
        yield from (by_place[place] for place in ranked)
