"""One run: play, credit, step, again; and what every few steps the policy scores. Leyden's credit and trainer cores."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from binary_search.events import POLICY, recorded
from binary_search.game import NUMBERS, POINTLESS
from binary_search.network import write_network
from binary_search.player import Played, play
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence, EvidenceEvent
from leyden.credit.core.group_events import group_events
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import Event, GroupCredited, SequenceCredited
from leyden.trainer.core.batching import BatchRules, GroupBuffer
from leyden.trainer.core.step_metrics import Metrics
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

SECRETS = range(1, NUMBERS + 1)
GOAL = 0.9
EVALUATION_GAMES = 32
"""Of each secret, sampled as in training: 512 games, so that 0.9 is known to about 0.013."""


@dataclass(frozen=True)
class Plan:
    """What all arms have in common."""

    learning_rate: float = 3e-3
    group_size: int = 8
    """Rollouts of one secret that are compared with each other; one group for each secret makes a step."""
    pointless: float = POINTLESS
    """Reward of a pointless guess."""
    max_steps: int = 450
    evaluate_every: int = 10
    stop_at_goal: bool = True
    """End a run when two evaluations in a row were at the goal."""

    @property
    def episodes_per_step(self) -> int:
        """Games that one step learns from."""
        return len(SECRETS) * self.group_size


@dataclass(frozen=True)
class Arm:
    """What one curve differs in from the others."""

    name: str
    credit: dict[str, Any]
    """Section `credit:` of a run file."""
    advantage_scale: float = 1.0
    """0 is the control: everything runs, nothing may be learnt."""


@dataclass(frozen=True)
class Point:
    """The policy after so many training episodes."""

    episodes: int
    sampled: float
    """Share of games won at temperature 1."""
    greedy: float
    """Share of the secrets found by the most probable guesses."""


@dataclass(frozen=True)
class Curve:
    """A run that is over."""

    points: list[Point]
    parameters: int
    recurrence: float
    """Share of the training guesses that were made in a state in which another rollout of the group was too."""


class Run:
    """An arm with a seed: the policy in training, and where its games are drawn from."""

    def __init__(self, arm: Arm, seed: int, plan: Plan, folder: Path) -> None:
        self.parameters = write_network(folder, seed)
        self._plan = plan
        settings = TrainerSettings(
            mode="full", learning_rate=plan.learning_rate, groups_per_step=len(SECRETS), seed=seed
        )
        environment = TrainerEnvironment(model=str(folder), device="cpu", threads=1)
        self.model = PolicyModel(settings, environment)
        self._learner = Learner(self.model, settings)
        self._section = CreditSection.model_validate(arm.credit)
        self._buffer = GroupBuffer(
            BatchRules(policy=POLICY, groups_per_step=len(SECRETS), advantage_scale=arm.advantage_scale)
        )
        self._games = torch.Generator().manual_seed(seed)
        self._seed = seed
        self._shared = self._guesses = 0
        self.version = 0

    @property
    def recurrence(self) -> float:
        """Of all training guesses so far, as `Curve` has it."""
        return self._shared / max(self._guesses, 1)

    def play(self) -> list[Played]:
        """A group of games for every secret, one group after the other."""
        secrets = [secret for secret in SECRETS for _ in range(self._plan.group_size)]
        return play(self.model.causal, secrets, self._games, self._plan.pointless)

    def learn(self, played: Sequence[Played]) -> Metrics:
        """Credit the groups and make one optimiser step on all of them."""
        size = self._plan.group_size
        for at in range(0, len(played), size):
            group = played[at : at + size]
            self._count(group)
            group_id = f"seed-{self._seed}-step-{self.version}-secret-{group[0].secret}"
            for event in credited(group, group_id, self.version, self._section):
                self._buffer.add(event, 0, 0)
        batch = self._buffer.form(self.version)
        assert batch is not None
        self._buffer.take(batch)
        outcome = self._learner.step(batch, self.version)
        self._buffer.finish(batch, outcome.untrained)
        self.version += 1
        return outcome.metrics

    def evaluate(self) -> Point:
        """Score the policy on all secrets; draws from a generator of its own, so that training is not disturbed."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.version + 1)
        sampled = play(self.model.causal, [secret for secret in SECRETS for _ in range(EVALUATION_GAMES)], generator)
        greedy = play(self.model.causal, SECRETS, None)
        return Point(self.version * self._plan.episodes_per_step, _won(sampled), _won(greedy))

    def _count(self, group: Sequence[Played]) -> None:
        visitors = Counter(prompt for played in group for prompt in {action.prompt for action in played.actions})
        prompts = [action.prompt for played in group for action in played.actions]
        self._guesses += len(prompts)
        self._shared += sum(visitors[prompt] > 1 for prompt in prompts)


def credited(
    group: Sequence[Played], group_id: str, version: int, section: CreditSection
) -> list[SequenceCredited | GroupCredited]:
    """What the credit service publishes for a group of games: its sequences, then the group itself."""
    members = [
        member_of(assemble(_evidence(recorded(played, group_id, len(group), index, version))), section)
        for index, played in enumerate(group)
    ]
    (found,) = group_events(members, section)
    return [*found.sequences, found.group]


def _evidence(events: Iterable[Event]) -> Iterator[Evidence]:
    """The events as credit keeps them, each with a place of its own."""
    for event in events:
        assert isinstance(event, EvidenceEvent)
        yield Evidence(event, f"{event.type}/0/{event.event_id}")


def run(arm: Arm, seed: int, plan: Plan) -> Curve:
    """The learning curve of an arm, evaluated now and then; the same each time for a seed."""
    with tempfile.TemporaryDirectory() as folder:
        running = Run(arm, seed, plan, Path(folder))
        points = [running.evaluate()]
        for _ in range(plan.max_steps):
            running.learn(running.play())
            if running.version % plan.evaluate_every == 0:
                points.append(running.evaluate())
            if plan.stop_at_goal and min(point.sampled for point in points[-2:]) >= GOAL:
                break
    return Curve(points, running.parameters, round(running.recurrence, 4))


def episodes_to(curve: Curve, goal: float = GOAL) -> int | None:
    """Training episodes until an evaluation reached `goal` for the first time; None when none did."""
    return next((point.episodes for point in curve.points if point.sampled >= goal), None)


def _won(games: Sequence[Played]) -> float:
    return sum(game.found for game in games) / len(games)
