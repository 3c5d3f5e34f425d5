"""What a training gave, as frozen objects."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Update:
    """One optimiser step."""

    number: int
    """From 1."""
    reward: float
    """Mean reward of the rollouts that it was made on."""
    version: int
    """The policy version after it. The same as before it if nothing could be learned."""
    groups: int
    """Tasks in it."""
    flat: float
    """Share of its tasks whose rollouts all had the same reward; nothing is learned from those."""
    learned: bool
    """Whether it changed the model."""


@dataclass(frozen=True)
class HeldOut:
    """The evaluation of one version on the held-out tasks."""

    version: int
    mean: float | None
    """Mean reward of the judged rollouts; None if there is none."""
    rollouts: int
    judged: int
    """Rollouts with a reward. A rollout that failed has none: a failure is not a reward of 0."""


@dataclass(frozen=True)
class Best:
    """The best version that was measured: on the held-out tasks, or without those by its training rollouts."""

    version: int
    """0: the untrained model."""
    reward: float
    weights: Path | None
    """Folder with the model in Hugging Face format; None for version 0, and where only adapters are written."""


@dataclass(frozen=True)
class Training:
    """The result of a training. `print` shows the curve."""

    updates: tuple[Update, ...]
    held_out: tuple[HeldOut, ...]
    """Before the first update, every so many updates, and after the last."""
    best: Best | None
    problems: tuple[str, ...]
    """What went wrong on the way: failed rollouts, failing reward rules, rollouts that could not be trained."""
    data_dir: Path

    @property
    def rewards(self) -> list[float]:
        """Mean reward of each update, in order."""
        return [update.reward for update in self.updates]

    @property
    def versions(self) -> list[int]:
        """The versions that were made, in order."""
        return list(dict.fromkeys(update.version for update in self.updates if update.version > 0))

    def learned(self) -> tuple[float, float]:
        """Mean reward of the first and of the last third of the updates."""
        rewards = self.rewards
        third = max(1, len(rewards) // 3)
        return sum(rewards[:third]) / third, sum(rewards[-third:]) / third

    def __str__(self) -> str:
        lines = [f"update {one.number}  reward {one.reward:.3f}  version {one.version}" for one in self.updates]
        lines += [f"held out: version {one.version}  {shown(one.mean)}" for one in self.held_out]
        return "\n".join([*lines, *([f"best: version {self.best.version}"] if self.best else [])])


def shown(mean: float | None) -> str:
    """A mean as text; a dash if there is none."""
    return "-" if mean is None else f"{mean:.3f}"
