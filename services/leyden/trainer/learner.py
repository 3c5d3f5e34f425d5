"""Makes one optimiser step on a batch of groups: pack, forward, backward, clip, step. No Kafka, no files."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from leyden.trainer.core.actions import Doubles, PackedRow, pack_actions
from leyden.trainer.core.batching import Dropped
from leyden.trainer.core.forward import action_logprobs
from leyden.trainer.core.objective import (
    Aggregation,
    Objective,
    RatioBase,
    TokenTerms,
    policy_loss,
    surrogate_of,
    token_weights,
)
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.step_metrics import Metrics, StepMetric, TokenRecord, batch_metrics, token_metrics
from leyden.trainer.core.whiten import whitened
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerSettings


def objective_of(settings: TrainerSettings) -> Objective:
    """The objective with the settings' constants."""
    return Objective(
        name=settings.objective,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        dual_clip=settings.dual_clip,
        importance_cap=settings.importance_cap,
        kl=settings.kl,
        aggregation=Aggregation(settings.aggregation),
        ratio_base=RatioBase(settings.ratio_base),
    )


class Learner:
    """Makes steps on a `PolicyModel`. The same batches in the same order give the same weights, bit for bit."""

    def __init__(
        self, model: PolicyModel, settings: TrainerSettings, after_row: Callable[[], None] = lambda: None
    ) -> None:
        """`after_row` is called after every row of a step, for whoever watches that it goes on."""
        self._model = model
        self._after_row = after_row
        self._settings = settings
        self._objective = objective_of(settings)
        surrogate_of(settings.objective)  # fails now, not at the first step
        self._seconds: dict[StepMetric, float] = {}

    def step(self, batch: Sequence[ReadyGroup], version: int) -> StepOutcome:
        """Make one optimiser step on `batch`, sampled by versions up to `version`.

        If the gradient is not finite, each group is tried alone, and the step is made without those that are to blame.
        """
        started = time.perf_counter()
        self._seconds = dict.fromkeys(
            (StepMetric.SECONDS_PACK, StepMetric.SECONDS_FORWARD, StepMetric.SECONDS_BACKWARD), 0.0
        )
        metrics, norm = self._gradient(batch, version)
        untrained: dict[str, Dropped] = {}
        if not math.isfinite(norm):
            bad = {group.group_id for group in batch if not math.isfinite(self._gradient([group], version)[1])}
            untrained = dict.fromkeys(sorted(bad), Dropped.NOT_FINITE)
            batch = [replace(group, sequences=()) if group.group_id in bad else group for group in batch]
            metrics, norm = self._gradient(batch, version)
        stepped = bool(metrics[StepMetric.ROWS]) and math.isfinite(norm)
        if not stepped:
            why = Dropped.NO_SIGNAL if math.isfinite(norm) else Dropped.NOT_FINITE
            untrained |= {group.group_id: why for group in batch if group.sequences}
        metrics |= self._apply(norm, stepped)
        metrics |= {str(name): value for name, value in self._seconds.items()} | {
            StepMetric.SECONDS_STEP: time.perf_counter() - started
        }
        # JSON has no infinity or NaN: such values are left out; `optimiser/skipped` is set.
        finite = {str(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
        return StepOutcome(finite, not stepped, untrained)

    def _gradient(self, batch: Sequence[ReadyGroup], version: int) -> tuple[Metrics, float]:
        """The metrics of `batch`, and the norm of its gradient, which is left in the parameters, clipped."""
        started = time.perf_counter()
        metrics = batch_metrics(batch, version)
        rows = self._pack(batch, metrics)
        self._seconds[StepMetric.SECONDS_PACK] += time.perf_counter() - started
        self._model.optimiser.zero_grad(set_to_none=True)
        losses, records = zip(*map(self._accumulate, rows), strict=True) if rows else ((), ())
        metrics |= token_metrics(records, self._objective.importance_cap) | {StepMetric.LOSS: sum(losses)}
        norm = torch.nn.utils.clip_grad_norm_(self._model.trained.values(), self._settings.max_grad_norm)
        return metrics, float(norm)

    def _pack(self, batch: Sequence[ReadyGroup], metrics: Metrics) -> list[PackedRow]:
        """Pack the sequences to compute. Those with zero gradient count in the loss's denominator only."""
        sequences = [sequence for group in batch for sequence in group.sequences if sequence.action_tokens]
        weights_S = token_weights(
            [sequence.rollout for sequence in sequences],
            [sequence.action_tokens for sequence in sequences],
            self._objective.aggregation,
        )
        if self._settings.whiten_advantages:
            sequences = whitened(sequences, weights_S, abs(self._settings.advantage_scale))
        needed = [i for i, s in enumerate(sequences) if s.has_signal or self._objective.kl > 0]
        computed = [sequences[i] for i in needed]
        rows = pack_actions(computed, weights_S[needed], self._settings.row_tokens)
        metrics[StepMetric.SEQUENCES_COMPUTED] = float(len(computed))
        metrics[StepMetric.TOKENS_UNPACKED] = float(sum(len(s.token_ids_T) for s in computed))
        metrics[StepMetric.TOKENS_PACKED] = float(sum(row.tree.tokens for row in rows))
        metrics[StepMetric.ROWS] = float(len(rows))
        return rows

    def _accumulate(self, row: PackedRow) -> tuple[float, TokenRecord]:
        """Add the row's gradient to the parameters'."""
        started = time.perf_counter()
        reference_A: Tensor | None = None
        if self._objective.kl > 0:
            with self._model.reference() as reference:
                reference_A = action_logprobs(reference, row).logprobs_A
        found = action_logprobs(self._model.causal, row)
        behaviour_A, advantages_A, weights_A = (
            torch.from_numpy(values).to(found.logprobs_A)
            for values in (row.behaviour_A, row.advantages_A, row.weights_A)
        )
        loss, terms = policy_loss(
            found.logprobs_A,
            behaviour_T=behaviour_A,
            advantages_T=advantages_A,
            weights_T=weights_A,
            objective=self._objective,
            reference_T=reference_A,
        )
        value = float(loss.detach())
        forwarded = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        self._seconds[StepMetric.SECONDS_FORWARD] += forwarded - started
        self._seconds[StepMetric.SECONDS_BACKWARD] += time.perf_counter() - forwarded
        self._after_row()
        return value, _record(terms, found.logprobs_A.detach() - behaviour_A, found.entropy_A)

    def _apply(self, norm: float, stepped: bool) -> Metrics:
        """Step on the gradient if `stepped`; else no weight changes."""
        started = time.perf_counter()
        if stepped:
            self._model.optimiser.step()
        self._model.optimiser.zero_grad(set_to_none=True)
        self._seconds[StepMetric.SECONDS_OPTIMISER] = time.perf_counter() - started
        return {
            StepMetric.GRAD_NORM: norm if stepped else 0.0,
            StepMetric.LEARNING_RATE: self._settings.learning_rate,
            StepMetric.SKIPPED: float(not stepped),
        }


def _record(terms: TokenTerms, gap_A: Tensor, entropy_A: Tensor) -> TokenRecord:
    def plain(values: Tensor) -> Doubles:
        return values.detach().to("cpu", torch.float64).numpy().astype(np.float64, copy=False)

    return TokenRecord(
        importance_A=plain(terms.importance_T),
        gap_A=plain(gap_A.abs()),
        clipped_A=plain(terms.clipped_T),
        kl_A=plain(terms.kl_T),
        entropy_A=plain(entropy_A),
    )
