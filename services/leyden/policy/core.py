"""The agent's decisions: which version to load, from which folder, and what to announce. No IO, no clock."""

from dataclasses import astuple, dataclass
from datetime import datetime

from leyden.events import PolicyPromoted, PolicyServed
from leyden.ids import derive

PRODUCER = "policy"


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a policy: an engine and its agent."""

    policy: str
    name: str
    """Unique among the policy's replicas, and the same after a restart."""
    endpoint: str
    """URL at which gateways reach the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """The state of an engine, as it reports it."""

    policy: str
    version: int
    engine: str
    model: str
    """The `model` of requests for this version."""
    adapters: bool
    """True: it serves LoRA adapters next to the base model. False: it needs full models."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load `folder` as `version`."""

    version: int
    folder: str


def next_load(report: EngineReport, wanted: PolicyPromoted | None) -> Load | None:
    """What the engine must load to serve `wanted`; None if it serves it already or nothing was promoted."""
    if wanted is None or report.version == wanted.version:
        return None
    order = (wanted.adapter, wanted.merged_weights) if report.adapters else (wanted.merged_weights, wanted.adapter)
    folder = next((folder for folder in order if folder), "")
    return Load(wanted.version, folder)


def announcement(report: EngineReport, wanted: PolicyPromoted | None, replica: Replica, now: datetime) -> PolicyServed:
    """The event that announces the served version. Its id includes the promotion, so a rollback gives a new event."""
    cause = wanted.event_id if wanted and wanted.version == report.version else "start"
    return PolicyServed(
        event_id=derive("policy-served", *astuple(replica), report.model, report.version, cause),
        event_time=now,
        producer=PRODUCER,
        policy=report.policy,
        version=report.version,
        replica=replica.name,
        endpoint=replica.endpoint,
        model=report.model,
        engine=report.engine,
    )
