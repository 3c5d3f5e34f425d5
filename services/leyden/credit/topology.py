"""What credit subscribes to. The topics joined by rollout are co-partitioned: one replica sees all of a rollout.

A group's members may come from several replicas, and any replica may close and publish the group.
"""

from leyden.credit.core.evidence import AnsweredCall, TrimmedCall
from leyden.credit.core.section import CreditSection
from leyden.credit.handlers import CreditHandlers
from leyden.events.codec import (
    GROUPS,
    MODEL_CALLS,
    REWARDS,
    ROLLOUTS,
    SPANS,
    TRANSITIONS,
    batch_decoder,
)
from leyden.kafka.kept import Positions
from leyden.kafka.progress import Stage
from leyden.kafka.subscriber import Subscription

PUBLISHES = frozenset({GROUPS, TRANSITIONS})
GROUP = "credit"


def readers(section: CreditSection, name: str = "") -> tuple[Stage, ...]:
    """Who must have read a rollout's records before it can be a member: ingest, reward, credit itself."""
    spans = (SPANS,) if section.needs_spans else ()
    own = Stage(f"{GROUP}-{name}" if name else GROUP, (ROLLOUTS, MODEL_CALLS, *spans, REWARDS, GROUPS))
    return (Stage.of("ingest"), Stage.of("reward"), own)


def subscriptions(
    handlers: CreditHandlers,
    section: CreditSection,
    *,
    name: str = "",
    max_records: int = 500,
    positions: Positions | None = None,
) -> list[Subscription]:
    """One subscription to all topics, so that a batch often holds a whole rollout; spans only if they are needed."""
    stage = readers(section, name)[-1]
    decoders = {MODEL_CALLS: batch_decoder((AnsweredCall if section.needs_spans else TrimmedCall,))}
    return [
        Subscription(
            stage.topics,
            handlers.on_batch,
            stage.group,
            max_records=max_records,
            decoders=decoders,
            positions=positions,
        )
    ]
