"""What credit listens to. The topics of rollouts are co-partitioned: one replica sees all of a rollout.

Groups are not: the members of one may come from several replicas, and any of them may close it and build it.
"""

from leyden.credit.core.evidence import AnsweredCall, TrimmedCall
from leyden.credit.core.rules import Rules
from leyden.credit.handlers import CreditHandlers
from leyden.events.codec import GROUPS, MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, TRANSITIONS, batch_decoder
from leyden.kafka.subscriber import Subscription

PUBLISHES = frozenset({GROUPS, TRANSITIONS})
GROUP = "credit"


def subscriptions(handlers: CreditHandlers, rules: Rules, max_records: int = 500) -> list[Subscription]:
    """One subscription to all, so that a batch often holds a rollout whole; spans only where they tell something."""
    spans = (SPANS,) if rules.needs_spans else ()
    topics = (ROLLOUTS, MODEL_CALLS, *spans, REWARDS, GROUPS)
    group = f"{GROUP}-{rules.credit}" if rules.credit else GROUP
    decoders = {MODEL_CALLS: batch_decoder((AnsweredCall if rules.needs_spans else TrimmedCall,))}
    return [Subscription(topics, handlers.on_batch, group, max_records=max_records, decoders=decoders)]
