"""The demo's state: computed from events, shown by the view, written by the report. No IO."""

import time
from dataclasses import dataclass, field

from leyden.cli.demo.gateway import Queue
from leyden.events import Event, GroupCredited, ModelCallRecorded, RolloutEnded, SequenceCredited, TrainingStepCompleted


@dataclass
class DemoState:
    """Counts by id, so that redelivered events and restarts change nothing."""

    updates: int
    rollouts_per_update: int
    began: float = field(default_factory=time.monotonic)
    phase: str = "starting"
    version: int | None = None
    queue: Queue = field(default_factory=lambda: Queue(0, 0, 0))
    lag: dict[str, int] = field(default_factory=dict)
    steps: dict[int, TrainingStepCompleted] = field(default_factory=dict)
    live_at: dict[int, float] = field(default_factory=dict)
    """Version → seconds from the start until it was first live."""
    ended: dict[tuple[str, int], RolloutEnded] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    sequences: set[str] = field(default_factory=set)
    sequence_records: int = 0
    calls: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def see(self, event: Event) -> None:
        """Add one event."""
        match event:
            case TrainingStepCompleted():
                self.steps[event.step] = event
            case RolloutEnded():
                self.ended[(event.rollout_id, event.attempt)] = event
            case GroupCredited():
                self.groups.add(event.group_id)
            case SequenceCredited():
                self.sequences.add(event.event_id)
                self.sequence_records += 1
            case ModelCallRecorded():
                self.calls.add(event.call_id)
            case _:
                return

    def see_version(self, version: int | None) -> None:
        """Record the live version, as the gateway reports it."""
        self.version = version
        if version is not None:
            self.live_at.setdefault(version, self.elapsed_s)

    def note(self, text: str) -> None:
        """Add a note for the view and the report, unless it repeats the last one."""
        if self.notes[-1:] != [text]:
            self.notes.append(text)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the loop began."""
        return time.monotonic() - self.began

    @property
    def trained_version(self) -> int:
        """The version after the last update; an update that changes no weight makes none."""
        return self.steps[max(self.steps)].version if self.steps else 0

    @property
    def is_current(self) -> bool:
        """Whether the version after the last update is live."""
        return self.version == self.trained_version

    @property
    def rewards(self) -> list[float]:
        """Mean reward of each update, in order."""
        return [self.steps[step].metrics["reward/mean"] for step in sorted(self.steps)]

    @property
    def finished_rollouts(self) -> int:
        """Number of rollouts with a final end."""
        return len({ended.rollout_id for ended in self.ended.values() if ended.final})

    def learned(self) -> tuple[float, float]:
        """Mean reward of the first and of the last third of the updates."""
        rewards = self.rewards
        third = max(1, len(rewards) // 3)
        return sum(rewards[:third]) / third, sum(rewards[-third:]) / third
