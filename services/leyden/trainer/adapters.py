"""Adapters of the trainer's ports: torch (imported only when the model is loaded), transitions, recorded batches."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leyden.events import BatchFormed
from leyden.events.codec import TRAINING_BATCHES, TRANSITIONS, decode
from leyden.kafka import Retry
from leyden.kafka.admin import topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import LogReader
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.types import KafkaError, TopicPartition
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

if TYPE_CHECKING:
    from leyden.trainer.checkpoint import CheckpointStore
    from leyden.trainer.learner import Learner
    from leyden.trainer.model import PolicyModel

log = logging.getLogger(__name__)


class TorchTraining:
    """`Training` with torch and checkpoints under `folder`. Calls `beat` after every row of a step and every save."""

    def __init__(
        self, settings: TrainerSettings, environment: TrainerEnvironment, folder: Path, beat: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._folder = folder
        self._beat = beat
        self._open: tuple[PolicyModel, Learner, CheckpointStore] | None = None

    @property
    def base_model(self) -> str:
        """Folder or hub id of the base model."""
        return self._environment.model

    @property
    def vocabulary(self) -> int:
        """Rows of the open model's input embedding."""
        assert self._open is not None
        return self._open[0].vocabulary

    def open(self) -> SavedCheckpoint | None:
        """Load torch and the model, then claim the checkpoints, so that a predecessor works for as long as it can."""
        from leyden.trainer.checkpoint import CheckpointStore
        from leyden.trainer.learner import Learner
        from leyden.trainer.model import PolicyModel

        model = PolicyModel(self._settings, self._environment)
        store = CheckpointStore(self._folder, self._settings.policy, self._settings.keep_checkpoints)
        newest = store.newest()
        if newest is not None:
            store.restore(newest, model, self._settings.settings_hash)
        self._open = model, Learner(model, self._settings, self._beat), store
        return newest

    def check(self) -> None:
        """Raise `FencedError` if another trainer has claimed the checkpoints."""
        assert self._open is not None
        self._open[2].check()

    def step(self, batch: Sequence[ReadyGroup], version: int) -> StepOutcome:
        """Make one optimiser step."""
        assert self._open is not None
        return self._open[1].step(batch, version)

    def save(self, progress: Progress) -> SavedCheckpoint:
        """Write a durable checkpoint."""
        assert self._open is not None
        saved = self._open[2].save(self._open[0], progress)
        self._beat()
        return saved


class KafkaTransitions:
    """`Transitions` of one topic (full name)."""

    def __init__(self, settings: KafkaSettings, claims: ClaimStore, topic: str) -> None:
        self._settings = settings
        self._claims = claims
        self._topic = topic

    async def ends(self) -> Mapping[int, int]:
        """Behind the last record of each partition that is not a dead letter: no handler is given those."""
        with kafka_or_retry():
            partitions = await topic_partitions(self._settings, [self._topic])
            async with LogReader(self._settings) as reader:
                bounds = await reader.bounds(partitions)
                ends = {tp.partition: await self._end(reader, tp, *bounds[tp]) for tp in partitions}
        return {partition: end for partition, end in ends.items() if end}

    async def _end(self, reader: LogReader, partition: TopicPartition, first: int, last: int) -> int:
        """The offset behind the last record in [first, last) that can be decoded; 0 if there is none."""
        length = 1
        while first < last:
            start, end = max(first, last - length), 0
            async for record in reader.stored({partition: (start, last)}):
                try:
                    decode(TRANSITIONS, await self._claims.value_of(record))
                except ValueError:
                    continue
                end = record.offset + 1
            if end:
                return end
            last, length = start, 2 * length
        return 0


class KafkaBatchLog:
    """`BatchLog` on a topic of one partition (full name), over a connection that is kept open. Close it at the end."""

    def __init__(self, settings: KafkaSettings, claims: ClaimStore, topic: str) -> None:
        self._settings = settings
        self._claims = claims
        self._topic = topic
        self._next = 0
        self._open = AsyncExitStack()
        self._reader: LogReader | None = None

    async def close(self) -> None:
        """Close the connection; `read` opens another one."""
        self._reader = None
        await self._open.aclose()

    async def read(self) -> list[BatchFormed]:
        """Read from where the last call ended. A record that cannot be decoded is logged and skipped."""
        found: list[BatchFormed] = []
        partition = TopicPartition(self._topic, 0)
        try:
            with kafka_or_retry():
                if self._reader is None:
                    self._reader = await self._open.enter_async_context(LogReader(self._settings))
                first, end = (await self._reader.bounds([partition]))[partition]
                async for record in self._reader.read({partition: (max(first, self._next), end)}, self._claims):
                    try:
                        event = decode(TRAINING_BATCHES, record.value)
                    except ValueError as error:
                        log.warning("%s/%d is not a batch and is skipped: %s", self._topic, record.offset, error)
                        continue
                    assert isinstance(event, BatchFormed)
                    found.append(event)
        except Retry:
            await self.close()
            raise
        self._next = end
        return found


@contextmanager
def kafka_or_retry() -> Iterator[None]:
    """Raise `Retry` for any Kafka error in the block."""
    try:
        yield
    except KafkaError as error:
        raise Retry(f"Kafka request failed: {error!r}") from error
