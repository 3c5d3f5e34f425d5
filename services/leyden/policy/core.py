"""What the agent decides: which version should be live, from which folder, and what to announce. No IO, no clock."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import datetime

from leyden.events import PolicyPromoted, PolicyServed
from leyden.ids import derive

PRODUCER = "policy"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the agent stands."""

    policy: str
    replica: str
    """Unique among the policy's replicas, and the same after a restart."""
    endpoint: str
    """Where gateways reach the engine."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine says of itself."""

    policy: str
    version: int
    engine: str
    model: str
    """The `model` that a request names to be answered by this version."""
    adapters: bool
    """Whether it serves adapters beside the base model; else it wants whole models."""


@dataclass(frozen=True, slots=True)
class Load:
    """Put `folder` live as `version`."""

    version: int
    folder: str


def newest_promotion(events: Iterable[object], policy: str) -> PolicyPromoted | None:
    """The policy's last promotion: the log's order decides, since going back to an older version is one too."""
    own = [event for event in events if isinstance(event, PolicyPromoted) and event.policy == policy]
    return own[-1] if own else None


def next_load(report: EngineReport, wanted: PolicyPromoted | None) -> Load | None:
    """What must be loaded so that the engine serves `wanted`; None when it does, or when nothing was promoted."""
    if wanted is None or report.version == wanted.version:
        return None
    order = (wanted.adapter, wanted.merged_weights) if report.adapters else (wanted.merged_weights, wanted.adapter)
    folder = next((folder for folder in order if folder), "")
    return Load(wanted.version, folder)


def announcement(report: EngineReport, wanted: PolicyPromoted | None, place: Place, now: datetime) -> PolicyServed:
    """The event that says what this replica serves; its id depends on the promotion, so that a way back is news."""
    cause = wanted.event_id if wanted and wanted.version == report.version else "start"
    return PolicyServed(
        event_id=derive("policy-served", *astuple(place), report.model, report.version, cause),
        event_time=now,
        producer=PRODUCER,
        policy=report.policy,
        version=report.version,
        replica=place.replica,
        endpoint=place.endpoint,
        model=report.model,
        engine=report.engine,
    )
