"""Makes one optimiser step on a batch of groups: pack, forward, backward, clip, step. No Kafka, no files."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leyden.trainer.core.actions import Doubles, PackedRow, pack_actions
from leyden.trainer.core.batching import Dropped
from leyden.trainer.core.forward import action_logprobs
from leyden.trainer.core.learning_rate import Decay, learning_rate
from leyden.trainer.core.loss import (
    Aggregation,
    Importance,
    Kl,
    LossTerms,
    RatioBase,
    TokenTerms,
    row_loss,
    token_weights,
)
from leyden.trainer.core.objectives import ActionTokens
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.step_metrics import Metrics, StepMetric, TokenRecord, batch_metrics, token_metrics
from leyden.trainer.core.whiten import whitened
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerSettings


def loss_terms(settings: TrainerSettings) -> LossTerms:
    """The loss that the settings say."""
    return LossTerms(
        objective=settings.objective,
        importance=Importance(settings.importance),
        importance_cap=settings.importance_cap,
        importance_floor=settings.importance_floor,
        kl=settings.kl,
        kl_estimate=Kl(settings.kl_estimate),
        entropy=settings.entropy,
        ratio_base=RatioBase(settings.ratio_base),
    )


@dataclass(eq=False)
class _Row:
    """A row, and what its first epoch found that the later ones need."""

    packed: PackedRow
    old_A: Tensor | None = None
    reference_A: Tensor | None = None


class Learner:
    """Makes steps on a `PolicyModel`. The same batches in the same order give the same weights, bit for bit."""

    def __init__(
        self, model: PolicyModel, settings: TrainerSettings, after_row: Callable[[], None] = lambda: None
    ) -> None:
        """`after_row` is called after every row of a step, for whoever watches that it goes on."""
        self._model = model
        self._after_row = after_row
        self._settings = settings
        self._terms = loss_terms(settings)
        self._seconds: dict[StepMetric, float] = {}

    def step(self, batch: Sequence[ReadyGroup], version: int) -> StepOutcome:
        """Make `epochs` optimiser steps on `batch`, sampled by versions up to `version`, the model's number.

        If the gradient is not finite, each group is tried alone, and the step is made without those that are to blame.
        """
        started = time.perf_counter()
        self._seconds = dict.fromkeys(
            (
                StepMetric.SECONDS_PACK,
                StepMetric.SECONDS_FORWARD,
                StepMetric.SECONDS_BACKWARD,
                StepMetric.SECONDS_OPTIMISER,
            ),
            0.0,
        )
        metrics, rows, norm = self._first_gradient(batch, version)
        untrained: dict[str, Dropped] = {}
        if not math.isfinite(norm):
            bad = {group.group_id for group in batch if not math.isfinite(self._first_gradient([group], version)[2])}
            untrained = dict.fromkeys(sorted(bad), Dropped.NOT_FINITE)
            batch = [replace(group, sequences=()) if group.group_id in bad else group for group in batch]
            metrics, rows, norm = self._first_gradient(batch, version)
        stepped = bool(rows) and math.isfinite(norm)
        if not stepped:
            why = Dropped.NO_SIGNAL if math.isfinite(norm) else Dropped.NOT_FINITE
            untrained |= {group.group_id: why for group in batch if group.sequences}
        rate = learning_rate(
            version,
            self._settings.learning_rate,
            warmup_steps=self._settings.warmup_steps,
            decay=Decay(self._settings.decay),
            decay_steps=self._settings.decay_steps or 0,
            decay_to=self._settings.decay_to,
        )
        self._apply(rate, stepped)
        metrics |= {StepMetric.GRAD_NORM: norm if stepped else 0.0, StepMetric.EPOCHS: float(stepped)}
        if stepped:
            metrics |= self._later_epochs(rows, rate)
        metrics |= {StepMetric.LEARNING_RATE: rate, StepMetric.SKIPPED: float(not stepped)}
        metrics |= {str(name): value for name, value in self._seconds.items()} | {
            StepMetric.SECONDS_STEP: time.perf_counter() - started
        }
        # JSON has no infinity or NaN: such values are left out; `optimiser/skipped` is set.
        finite = {str(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
        return StepOutcome(finite, not stepped, untrained)

    def _later_epochs(self, rows: Sequence[_Row], rate: float) -> Metrics:
        """The epochs after the first; none after one whose gradient is not finite."""
        metrics: Metrics = {}
        for epoch in range(1, self._settings.epochs):
            found, norm = self._gradient(rows)
            self._apply(rate, math.isfinite(norm))
            if not math.isfinite(norm):
                break
            metrics = {StepMetric.CLIPPED: found[StepMetric.CLIPPED], StepMetric.EPOCHS: float(epoch + 1)}
        return metrics

    def _first_gradient(self, batch: Sequence[ReadyGroup], version: int) -> tuple[Metrics, list[_Row], float]:
        """The metrics of `batch`, its rows, and the norm of its gradient before any step on it."""
        started = time.perf_counter()
        metrics = batch_metrics(batch, version)
        rows = [_Row(packed) for packed in self._pack(batch, metrics)]
        self._seconds[StepMetric.SECONDS_PACK] += time.perf_counter() - started
        found, norm = self._gradient(rows)
        return metrics | found, rows, norm

    def _gradient(self, rows: Sequence[_Row]) -> tuple[Metrics, float]:
        """The metrics of the tokens, and the norm of the gradient, which is left in the parameters, clipped."""
        self._model.optimiser.zero_grad(set_to_none=True)
        losses, records = zip(*map(self._accumulate, rows), strict=True) if rows else ((), ())
        metrics = token_metrics(records) | {StepMetric.LOSS: sum(losses)}
        norm = torch.nn.utils.clip_grad_norm_(self._model.trained.values(), self._settings.max_grad_norm)
        return metrics, float(norm)

    def _pack(self, batch: Sequence[ReadyGroup], metrics: Metrics) -> list[PackedRow]:
        """Pack the sequences to compute. Those with zero gradient count in the loss's denominator only."""
        sequences = [sequence for group in batch for sequence in group.sequences if sequence.action_tokens]
        weights_S = token_weights(
            [sequence.rollout for sequence in sequences],
            [sequence.action_tokens for sequence in sequences],
            Aggregation(self._settings.aggregation),
            self._settings.constant_tokens,
        )
        if self._settings.whiten_advantages:
            sequences = whitened(sequences, weights_S, abs(self._settings.advantage_scale))
        all_count = self._settings.learns_without_advantages
        needed = [i for i, sequence in enumerate(sequences) if sequence.has_signal or all_count]
        computed = [sequences[i] for i in needed]
        rows = pack_actions(computed, weights_S[needed], self._settings.row_tokens)
        metrics[StepMetric.SEQUENCES_COMPUTED] = float(len(computed))
        metrics[StepMetric.TOKENS_UNPACKED] = float(sum(len(s.token_ids_T) for s in computed))
        metrics[StepMetric.TOKENS_PACKED] = float(sum(row.tree.tokens for row in rows))
        metrics[StepMetric.ROWS] = float(len(rows))
        return rows

    def _accumulate(self, row: _Row) -> tuple[float, TokenRecord]:
        """Add the row's gradient to the parameters'."""
        started = time.perf_counter()
        packed = row.packed
        if self._terms.kl > 0 and row.reference_A is None:
            with self._model.reference() as reference:
                row.reference_A = action_logprobs(reference, packed).logprobs_A
        found = action_logprobs(self._model.causal, packed, entropy_gradient=self._terms.entropy > 0)
        behaviour_A, advantages_A, weights_A = (
            torch.from_numpy(values).to(found.logprobs_A)
            for values in (packed.behaviour_A, packed.advantages_A, packed.weights_A)
        )
        if row.old_A is None:
            on_trainer = self._terms.ratio_base is RatioBase.TRAINER
            row.old_A = found.logprobs_A.detach() if on_trainer else behaviour_A
        loss, terms = row_loss(
            ActionTokens(
                logprobs_A=found.logprobs_A,
                old_A=row.old_A,
                behaviour_A=behaviour_A,
                advantages_A=advantages_A,
                sequence_A=torch.from_numpy(packed.sequence_A).to(found.logprobs_A.device),
            ),
            weights_A=weights_A,
            terms=self._terms,
            reference_A=row.reference_A,
            entropy_A=found.entropy_A,
        )
        value = float(loss.detach())
        forwarded = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        self._seconds[StepMetric.SECONDS_FORWARD] += forwarded - started
        self._seconds[StepMetric.SECONDS_BACKWARD] += time.perf_counter() - forwarded
        self._after_row()
        return value, _record(terms, found.logprobs_A.detach() - behaviour_A, found.entropy_A)

    def _apply(self, rate: float, stepped: bool) -> None:
        """Step on the gradient if `stepped`; else no weight changes."""
        started = time.perf_counter()
        if stepped:
            for parameters in self._model.optimiser.param_groups:
                parameters["lr"] = rate
            self._model.optimiser.step()
        self._model.optimiser.zero_grad(set_to_none=True)
        self._seconds[StepMetric.SECONDS_OPTIMISER] += time.perf_counter() - started


def _record(terms: TokenTerms, gap_A: Tensor, entropy_A: Tensor) -> TokenRecord:
    def plain(values: Tensor) -> Doubles:
        return values.detach().to("cpu", torch.float64).numpy().astype(np.float64, copy=False)

    return TokenRecord(
        importance_A=plain(terms.importance_A),
        gap_A=plain(gap_A.abs()),
        truncated_A=plain(terms.truncated_A),
        clipped_A=plain(terms.clipped_A),
        kl_A=plain(terms.kl_A),
        entropy_A=plain(entropy_A),
    )
