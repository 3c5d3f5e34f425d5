"""The order in which equal replicas are tried: the least loaded first, or the one that has seen the prefix before.

Affinity is rendezvous hashing (Thaler, Ravishankar 1998: every key ranks every replica, and a replica that comes or
goes moves only its own keys) with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded
Loads", arXiv:1608.01350): a replica with more than `BOUND` times the mean load is passed over, so that one long prefix
cannot drown one replica while the others idle. All counts are of calls in flight from this gateway.
"""

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any

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
