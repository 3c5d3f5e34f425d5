"""Handles checkpoints: publishes versions and promotions, then stores what was promoted."""

from collections.abc import Sequence

from leyden.events import CheckpointSaved, Event, TrainingStepCompleted
from leyden.events.codec import MODELS
from leyden.kafka import Delivered, Outgoing
from leyden.registry.core import decide, promotion_key, version_name
from leyden.registry.metrics import PROMOTED_VERSION, REGISTERED, TRAINED_STEP
from leyden.registry.ports import Promotions, Publisher


class RegistryHandlers:
    """The handlers of the registry.

    `automatic` False leaves every version a candidate. `experiment` is appended to the policy's name.
    """

    def __init__(self, promotions: Promotions, publisher: Publisher, automatic: bool, experiment: str = "") -> None:
        self._promotions = promotions
        self._publisher = publisher
        self._automatic = automatic
        self._experiment = experiment

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Register every checkpoint of `batch`, then promote newer ones. A redelivery publishes the same events again.

        A promotion is stored after Kafka has acknowledged it, so a crash in between cannot lose it.
        """
        causes = {one.event.event_id: one.traceparent for one in batch}
        checkpoints = [self._named(one.event) for one in batch if isinstance(one.event, CheckpointSaved)]
        for one in batch:
            if isinstance(one.event, TrainingStepCompleted):
                TRAINED_STEP.labels(policy=one.event.policy).set(one.event.step)
        promoted = await self._promotions.load({checkpoint.policy for checkpoint in checkpoints})
        decision = decide(checkpoints, promoted, self._automatic)
        await self._publisher.publish_all(
            [
                Outgoing(MODELS, version_name(v.policy, v.version), v, causes[v.lineage.checkpoint_event])
                for v in decision.registered
            ]
        )
        await self._publisher.publish_all(
            [Outgoing(MODELS, promotion_key(event.policy, event.version), event) for event in decision.promoted]
        )
        for version in decision.registered:
            REGISTERED.labels(policy=version.policy).inc()
        for event in decision.promoted:
            await self._promotions.raise_to(event.policy, event.version)
            PROMOTED_VERSION.labels(policy=event.policy).set(event.version)

    def _named(self, checkpoint: CheckpointSaved) -> CheckpointSaved:
        if not self._experiment:
            return checkpoint
        return checkpoint.model_copy(update={"policy": f"{checkpoint.policy}+{self._experiment}"})
