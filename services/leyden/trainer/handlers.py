"""Collects credited groups; for each complete batch: record it, step, checkpoint, publish.

In this order a kill loses nothing. Before the batch is recorded, nothing has happened. If the process is killed before
the checkpoint is renamed, the step is made again from the recorded batch. If it is killed later, the next start
publishes the events that are missing.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from leyden.clock import Clock
from leyden.events import BatchFormed, Event, GroupCredited, SequenceCredited
from leyden.events.codec import CHECKPOINTS, TRAINING_BATCHES, TRAINING_METRICS
from leyden.kafka import Delivered, Outgoing, Publisher, Retry
from leyden.trainer.core.batching import BatchRules, GroupBuffer
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.progress import (
    Progress,
    SavedCheckpoint,
    checkpoint_event,
    manifest_of,
    sha256_of,
    step_event,
)
from leyden.trainer.core.recorded import BatchChain, batch_formed
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.step_metrics import StepMetric, dropped_metrics
from leyden.trainer.metrics import DROPPED, STEP, STEPS, VERSION, WAITING
from leyden.trainer.ports import BatchLog, Training, Transitions
from leyden.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


class TrainerHandler:
    """The trainer's state machine: buffer, step, checkpoint, events. Call `restore` before the first batch.

    Of several trainers on the same checkpoints only the last to start can save. What the others still publish changes
    nothing: a step is published after it was saved, as it was saved; of two batches the first in the log counts.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        training: Training,
        transitions: Transitions,
        batches: BatchLog,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._training = training
        self._transitions = transitions
        self._batches = batches
        self._publisher = publisher
        self._clock = clock
        self._step = self._version = 0
        self._buffer = GroupBuffer(self._rules())
        self._chain = BatchChain(self._rules())
        self._ends: Mapping[int, int] = {}
        """Where the transitions ended when recorded batches were found: their groups are below, or gone."""
        self._is_news = False
        """Whether batches were found since then."""
        self._untold: SavedCheckpoint | None = None

    async def restore(self) -> None:
        """Load the model and the newest checkpoint, and publish its events again. Read on from `positions` then.

        Raises `Retry` while Kafka is away.
        """
        saved = await asyncio.to_thread(self._training.open)
        rules = replace(self._rules(), vocabulary=self._training.vocabulary)
        if saved is None:
            self._buffer, self._chain = GroupBuffer(rules), BatchChain(rules)
        else:
            self._step, self._version = saved.progress.step, saved.progress.version
            self._buffer = GroupBuffer(rules, saved.progress.positions, saved.progress.finished)
            self._chain = BatchChain(rules, saved.progress.batch_id)
            self._untold = saved
        await self._read_batches()
        await self._note_ends()
        VERSION.labels(policy=self._settings.policy).set(self._version)
        log.info("resuming training of %s from version %d", self._settings.policy, self._version)
        await self._tell()

    async def on_batch(self, delivered: Sequence[Delivered[Event]]) -> None:
        """Add the records, and make each step as soon as its batch is complete.

        Raises `Retry` while Kafka is away, `FencedError` if another trainer was started on the same checkpoints.

        A batch is formed at the record that completes it; later records of the same poll do not change it. If the next
        batch is recorded already, it is trained once its groups are here, and no other.
        """
        await asyncio.to_thread(self._training.check)
        await self._tell()
        for one in delivered:
            if self._unfinished and isinstance(one.event, SequenceCredited | GroupCredited):
                self._buffer.add(one.event, one.partition, one.offset)
                await self._train_full_batches()
        WAITING.labels(policy=self._settings.policy).set(self._buffer.waiting)

    @property
    def version(self) -> int:
        """The policy's version, i.e. the number of steps that changed weights."""
        return self._version

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition → the offset to resume from; 0 for partitions that it does not name."""
        return self._buffer.positions

    @property
    def _unfinished(self) -> bool:
        return self._settings.max_steps is None or self._step < self._settings.max_steps

    async def _train_full_batches(self) -> None:
        while self._unfinished and (following := await self._next_batch()) is not None:
            await self._train(*following)
            await self._tell()

    async def _next_batch(self) -> tuple[BatchFormed, list[ReadyGroup]] | None:
        """The batch to train now, which is in the log, and exactly its groups; None if they are not complete yet."""
        while True:
            await self._note_ends()
            if (recorded := self._chain.next) is None:
                groups = self._buffer.form(self._version)
                if groups is None:
                    return None
                await self._record(groups)
            elif (groups := self._buffer.find(recorded)) is not None:
                self._buffer.take(groups)
                return recorded, groups
            elif not self._buffer.has_read(self._ends):
                return None
            else:
                await self._replace(recorded)

    async def _replace(self, recorded: BatchFormed) -> None:
        """Record what is here of a batch that cannot be trained as it is recorded."""
        groups = self._buffer.find_nearest(recorded)
        if groups is None:
            log.warning("the log no longer has all groups of recorded batch %d; forming another", recorded.step)
            self._chain.give_up(recorded)
        elif groups:
            log.warning("recorded batch %d names other sequences than this log has; recording those", recorded.step)
            if self._chain.next_besides(recorded.event_id) is None:
                await self._record(groups, replaces=recorded.event_id)
            self._chain.give_up(recorded)
        else:
            log.warning("all groups of recorded batch %d are finished here; going on behind it", recorded.step)
            self._chain.finish(recorded)

    async def _record(self, groups: Sequence[ReadyGroup], replaces: str = "") -> None:
        """Write a new batch to the log. If another trainer was faster, the next batch is its own."""
        settings = self._settings
        formed = batch_formed(
            groups,
            self._rules(),
            parent=self._chain.last,
            replaces=replaces,
            step=self._step + 1,
            version=self._version,
            seed=settings.seed,
            settings_hash=settings.settings_hash,
            formed_at=self._clock.now(),
        )
        await asyncio.to_thread(self._training.check)
        await self._publisher.publish_all([Outgoing(TRAINING_BATCHES, settings.policy, formed)])
        await self._read_batches(formed)
        if self._chain.next_besides(replaces) is None:
            raise Retry(f"batch {formed.step} is published, but cannot be read yet")

    async def _read_batches(self, own: BatchFormed | None = None) -> None:
        """Read what was recorded since the last call; `own` is the batch that this trainer has just formed."""
        for batch in await self._batches.read():
            self._chain.add(batch)
            self._is_news |= own is None or batch.event_id != own.event_id

    async def _note_ends(self) -> None:
        """After others' batches were read: note how far the log went."""
        following = self._chain.next
        if not self._is_news or following is None:
            return
        self._ends = await self._transitions.ends()
        self._is_news = False
        log.info("following recorded batches from step %d on", following.step)

    async def _train(self, recorded: BatchFormed, batch: Sequence[ReadyGroup]) -> None:
        """Make one step and its checkpoint. An error stops the process; a restart resumes from the last checkpoint.

        It is never caught: after a failed step the weights may differ from what the log explains.
        """
        outcome = await asyncio.to_thread(self._training.step, batch, self._version)
        self._buffer.finish(batch, outcome.untrained)
        self._chain.finish(recorded)
        progress = self._progress(batch, outcome)
        self._untold = await asyncio.to_thread(self._training.save, progress)
        self._step, self._version = progress.step, progress.version
        self._report(progress)

    def _progress(self, batch: Sequence[ReadyGroup], outcome: StepOutcome) -> Progress:
        settings, positions = self._settings, self._buffer.positions
        dropped, finished = self._buffer.take_dropped(), self._buffer.finished
        for reason, count in dropped.items():
            DROPPED.labels(policy=settings.policy, reason=reason).inc(count)
        manifest = manifest_of(batch, positions, settings.seed, settings.settings_hash)
        return Progress(
            policy=settings.policy,
            step=self._step + 1,
            version=self._version + (not outcome.skipped),
            skipped=outcome.skipped,
            base_model=self._training.base_model,
            settings_hash=settings.settings_hash,
            manifest=manifest,
            manifest_sha256=sha256_of(manifest),
            batch_id=self._chain.last,
            metrics=outcome.metrics | dropped_metrics(dropped),
            finished_at=self._clock.now(),
            positions=positions,
            done=list(finished.done),
            revisions=dict(finished.revisions),
            untrained=sorted(finished.untrained),
            above=dict(finished.above),
            unusable=self._buffer.take_unusable(),
        )

    async def _tell(self) -> None:
        """Publish the last step's events, unless that was done. A skipped step made no version to tell of."""
        if self._untold is None:
            return
        await asyncio.to_thread(self._training.check)
        key, progress = self._settings.policy, self._untold.progress
        outgoing = [Outgoing(TRAINING_METRICS, key, step_event(progress))]
        if not progress.skipped:
            outgoing.append(Outgoing(CHECKPOINTS, key, checkpoint_event(self._untold)))
        await self._publisher.publish_all(outgoing)
        self._untold = None

    def _report(self, progress: Progress) -> None:
        policy, metrics = self._settings.policy, progress.metrics
        VERSION.labels(policy=policy).set(progress.version)
        STEPS.labels(policy=policy).inc(not progress.skipped)
        if progress.unusable:
            group_id, why = next(iter(progress.unusable.items()))
            log.warning("%d groups cannot be trained; the first is %s: %s", len(progress.unusable), group_id, why)
        for name, value in metrics.items():
            STEP.labels(policy=policy, metric=name).set(value)
        log.info(
            "step %d: reward %.3f, %d sequences of %d groups, %d tokens in %d, logprob gap %.4f, gradient %.3f, %.1f s",
            progress.step,
            metrics.get(StepMetric.REWARD_MEAN, 0.0),
            metrics.get(StepMetric.SEQUENCES, 0.0),
            metrics.get(StepMetric.GROUPS, 0.0),
            metrics.get(StepMetric.TOKENS_UNPACKED, 0.0),
            metrics.get(StepMetric.TOKENS_PACKED, 0.0),
            metrics.get(StepMetric.LOGPROB_GAP, 0.0),
            metrics.get(StepMetric.GRAD_NORM, 0.0),
            metrics.get(StepMetric.SECONDS_STEP, 0.0),
        )

    def _rules(self) -> BatchRules:
        return BatchRules(
            policy=self._settings.policy,
            credit=self._settings.credit,
            groups_per_step=self._settings.groups_per_step,
            max_staleness=self._settings.max_staleness,
            drop_zero_variance=self._settings.drop_zero_variance,
            incomplete_after=self._settings.incomplete_after,
            advantage_scale=self._settings.advantage_scale,
            # The control run makes its steps.
            needs_signal=self._settings.advantage_scale != 0 and not self._settings.learns_without_advantages,
        )
