"""The trainer's ports in memory, and one life of its process."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fakes import FakePublisher
from leyden.clock import ManualClock
from leyden.events import (
    BatchFormed,
    Event,
    GroupCredited,
    SequenceCredited,
    Transition,
    pack_floats,
    pack_ints,
)
from leyden.events.codec import TRANSITIONS
from leyden.kafka import Delivered, Outgoing, Retry
from leyden.trainer.claim import FencedError
from leyden.trainer.core.batching import Dropped, GroupBuffer
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.handlers import TrainerHandler
from leyden.trainer.settings import TrainerSettings

TIME = datetime(2030, 1, 1, tzinfo=UTC)


class Disk(list[SavedCheckpoint]):
    """The checkpoints; they outlive the process."""

    claims = 0
    """How many trainers have opened them; the last one may save."""


class FakeTraining:
    """A model whose weights are the list of groups it was stepped on."""

    base_model = "base"
    vocabulary = 1000

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._claim = 0
        self.steps: list[tuple[list[str], int]] = []
        self.disk_full = False
        self.fails = False
        self.skips = True
        """Whether a batch of groups named `flat…` changes nothing."""

    def open(self) -> SavedCheckpoint | None:
        self.disk.claims += 1
        self._claim = self.disk.claims
        return self.disk[-1] if self.disk else None

    def check(self) -> None:
        if self._claim != self.disk.claims:
            raise FencedError("another trainer was started")

    def step(self, batch: Sequence[ReadyGroup], version: int) -> StepOutcome:
        if self.fails:
            raise RuntimeError("killed in the step")
        names = [group.group_id for group in batch]
        self.steps.append((names, version))
        flat = (
            dict.fromkeys(names, Dropped.NO_SIGNAL)
            if self.skips and all(name.startswith("flat") for name in names)
            else {}
        )
        return StepOutcome({"reward/mean": 0.5}, skipped=bool(flat), untrained=flat)

    def save(self, progress: Progress) -> SavedCheckpoint:
        self.check()
        if self.disk_full:
            raise OSError("no space left")
        folder = Path(f"/checkpoints/{progress.step}")
        whole = progress.model_copy(update={"weights_sha256": str(self.steps)})
        self.disk.append(SavedCheckpoint(folder, whole, folder / "merged", folder / "adapter"))
        return self.disk[-1]


class FakeTransitions:
    def __init__(self) -> None:
        self.end: dict[int, int] = {}
        self.failures = 0
        """Partition → where the transitions end."""

    async def ends(self) -> Mapping[int, int]:
        if self.failures:
            self.failures -= 1
            raise Retry("not answered")
        return self.end


class TopicPublisher(FakePublisher):
    """A publisher that refuses one topic."""

    refused = ""

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        if any(one.topic == self.refused for one in outgoing):
            raise Retry("not acknowledged")
        await super().publish_all(outgoing)


class FakeBatchLog:
    """The recorded batches; `records` outlives the process."""

    def __init__(self, publisher: FakePublisher, records: list[BatchFormed]) -> None:
        self.records = records
        self.hidden = False
        """Whether new records cannot be read yet."""
        self._publisher = publisher
        self._written = self._read = 0

    async def read(self) -> Sequence[BatchFormed]:
        written = self._publisher.of(BatchFormed)
        self.records += written[self._written :]
        self._written = len(written)
        if self.hidden:
            return []
        news = self.records[self._read :]
        self._read = len(self.records)
        return news


class Process:
    """One life of the trainer. `disk` and `recorded` outlive it."""

    def __init__(self, disk: Disk, recorded: list[BatchFormed] | None = None, **settings: object) -> None:
        self.training = FakeTraining(disk)
        self.transitions = FakeTransitions()
        self.publisher = TopicPublisher()
        self.batches = FakeBatchLog(self.publisher, [] if recorded is None else recorded)
        chosen = TrainerSettings.model_validate({"groups_per_step": 2, **settings})
        self.handler = TrainerHandler(
            settings=chosen,
            training=self.training,
            transitions=self.transitions,
            batches=self.batches,
            publisher=self.publisher,
            clock=ManualClock(TIME),
        )

    @property
    def recorded(self) -> list[BatchFormed]:
        return self.batches.records

    @property
    def told(self) -> list[Event]:
        """What was published of finished steps."""
        assert self.publisher.raw == [], "the trainer publishes events only"
        events = [outgoing.event for outgoing in self.publisher.published]
        return [event for event in events if not isinstance(event, BatchFormed)]  # type: ignore[misc]


def group(name: str, first_offset: int, revision: int = 0, credit: str = "") -> list[Delivered[Event]]:
    """A revision of a group of one sequence, closed."""
    transition = Transition(
        call_id=f"{name}-call", start=1, end=3, policy_version=0, temperature=1.0, reward=0.0, return_=1.0,
        advantage=1.0, origin=f"model-calls.v1/0/{first_offset}",
    )  # fmt: skip
    sequence = SequenceCredited(
        event_id=f"{name}-{revision}", event_time=TIME, producer="test", rollout_id=name, attempt=0, policy="policy",
        credit=credit, revision=revision,
        group_id=name, group_sequences=1, sequence_index=0, token_ids=pack_ints([1, 2, 3]),
        behaviour_logprobs=pack_floats([0, -1, -1]), transitions=[transition], rollout_reward=1.0,
    )  # fmt: skip
    closing = GroupCredited(
        event_id=f"{name}-end", event_time=TIME, producer="test", policy="policy", group_id=name, sequences=1,
        members=1, credit=credit, revision=revision,
    )  # fmt: skip
    events: list[Event] = [sequence, closing]
    return [Delivered(e, TRANSITIONS, name, 0, first_offset + i, f"o{i}") for i, e in enumerate(events)]


LOG = [record for index in range(5) for record in group(f"g{index}", 2 * index)]


def new_batch(buffer: GroupBuffer, version: int) -> list[ReadyGroup] | None:
    """Form a batch and take it out, as the handler does once it is recorded."""
    groups = buffer.form(version)
    if groups is not None:
        buffer.take(groups)
    return groups
