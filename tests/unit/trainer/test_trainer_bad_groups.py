"""One bad group costs itself only: the step on the others is the step that would have been made without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.events import GroupCredited, SequenceCredited, pack_floats, pack_ints
from leyden.trainer.core.batching import BatchRules, GroupBuffer
from leyden.trainer.core.loss import Importance, Kl, LossTerms, RatioBase, importance_weights, kl_estimate, row_loss
from leyden.trainer.core.objectives import OBJECTIVES, ActionTokens, Clipped, objective_of
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.sequences import to_sequence
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings
from trainer_fakes import new_batch

Groups = Callable[..., list[SequenceCredited]]
Close = Callable[..., GroupCredited]
VOCABULARY = 97
Change = Callable[[SequenceCredited], SequenceCredited]


def with_logprob(value: float) -> Change:
    """One behaviour logprob of the first action is `value`."""

    def change(event: SequenceCredited) -> SequenceCredited:
        logprobs = np.frombuffer(event.behaviour_logprobs, "<f4").copy()
        logprobs[event.transitions[0].start] = value
        return event.model_copy(update={"behaviour_logprobs": pack_floats(logprobs)})

    return change


def with_token(value: int, place: int = 0) -> Change:
    """One token id is `value`."""

    def change(event: SequenceCredited) -> SequenceCredited:
        ids = np.frombuffer(event.token_ids, "<i4").copy()
        ids[place] = value
        return event.model_copy(update={"token_ids": pack_ints(ids)})

    return change


def with_transition(**values: Any) -> Change:
    """The last transition has these values."""

    def change(event: SequenceCredited) -> SequenceCredited:
        *others, last = event.transitions
        return event.model_copy(update={"transitions": [*others, last.model_copy(update=values)]})

    return change


def with_reward(value: float) -> Change:
    return lambda event: event.model_copy(update={"rollout_reward": value})


BAD: list[tuple[Change, str]] = [
    (with_logprob(float("nan")), "not finite"),
    (with_logprob(float("-inf")), "not finite"),
    (with_logprob(-9999.0), "behaviour logprob -9999"),
    (with_logprob(-200.0), "behaviour logprob -200"),
    (with_logprob(0.5), "behaviour logprob 0.5"),
    (with_token(VOCABULARY), "in a vocabulary of 97"),
    (with_token(-1), "in a vocabulary of 97"),
    (with_token(2**31 - 1, -1), "in a vocabulary of 97"),
    (with_transition(advantage=1e39), "advantage 1e+39"),
    (with_transition(temperature=1e-30), "temperature 1e-30"),
    (with_transition(temperature=1e39), "temperature 1e+39"),
    (with_transition(policy_version=2**31), "policy version"),
    (with_transition(end=10_000), "does not fit"),
    (with_transition(start=0), "does not fit"),
    (with_reward(1e308), "reward 1e+308"),
]


def batch_of(groups: Sequence[Sequence[SequenceCredited]], closing: Close) -> tuple[list[ReadyGroup], dict[str, str]]:
    """The batch that a trainer forms of these groups, and the unusable ones with the reason."""
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=len(groups), vocabulary=VOCABULARY))
    records: list[SequenceCredited | GroupCredited] = []
    for events in groups:
        records += [*events, closing(events[0].group_id, len(events))]
    for offset, record in enumerate(records):
        buffer.add(record, 0, offset)
    batch = new_batch(buffer, 0)
    assert batch is not None
    return batch, buffer.take_unusable()


def stepped(model: Path, batch: Sequence[ReadyGroup], **changes: Any) -> tuple[StepOutcome, dict[str, torch.Tensor]]:
    """One step from the base model: what came of it, and the weights after it."""
    chosen = TrainerSettings.model_validate({"row_tokens": 64, "lora": {"rank": 2, "alpha": 4.0}, **changes})
    policy = PolicyModel(chosen, TrainerEnvironment(model=str(model), device="cpu", threads=1))
    outcome = Learner(policy, chosen).step(batch, 0)
    return outcome, {name: parameter.detach().clone() for name, parameter in policy.trained.items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("change", "reason"), BAD)
def test_a_malformed_group_is_named_and_the_others_are_whole(
    group: Groups, closing: Close, change: Change, reason: str
) -> None:
    first, bad, last = group("a", 1), group("bad", 2), group("c", 3)
    batch, unusable = batch_of([first, [bad[0], change(bad[1]), bad[2]], last], closing)
    assert [len(ready.sequences) for ready in batch] == [3, 0, 3]
    assert list(unusable) == ["bad"]
    assert unusable["bad"].startswith("malformed: sequence 1: ")
    assert reason in unusable["bad"]


BASES = [{}, {"ratio_base": "behaviour"}, {"importance_cap": None}, {"kl": 0.1}, {"whiten_advantages": True}]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    change=st.sampled_from([change for change, _ in BAD])
    | st.floats(-1e30, -100.1).map(with_logprob)
    | st.floats(0.01, 1e30).map(with_logprob)
    | st.integers(VOCABULARY, 2**31 - 1).map(with_token)
    | st.floats(3.5e38, 1e300).map(lambda value: with_transition(advantage=-value)),
    changes=st.sampled_from(BASES),
    where=st.integers(0, 2),
)
def test_the_step_beside_a_malformed_group_is_the_step_without_it(
    tiny_llama: Path, group: Groups, closing: Close, change: Change, changes: dict[str, Any], where: int
) -> None:
    good = [group("a", 1), group("b", 2)]
    bad = [change(event) for event in group("bad", 3)]
    batch, unusable = batch_of([*good[:where], bad, *good[where:]], closing)
    alone, _ = batch_of(good, closing)
    (_, left), (_, right) = stepped(tiny_llama, batch, **changes), stepped(tiny_llama, alone, **changes)
    assert list(unusable) == ["bad"]
    assert same(left, right)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3e38])
def test_a_group_whose_gradient_is_not_finite_is_left_out_of_its_step(
    tiny_llama: Path, group: Groups, closing: Close, value: float
) -> None:
    """Whatever gets past the checks of single numbers, the arithmetic tells."""
    batch, _ = batch_of([group("a", 1), group("bad", 2), group("c", 3)], closing)
    for sequence in batch[1].sequences:
        sequence.advantages_T[sequence.mask_T] = value
    alone, _ = batch_of([group("a", 1), group("c", 3)], closing)
    outcome, weights = stepped(tiny_llama, batch)
    _, expected = stepped(tiny_llama, alone)
    if outcome.untrained:
        assert outcome.untrained == {"bad": "not_finite"}
        assert same(weights, expected)
    assert not outcome.skipped
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert np.isfinite(value) or outcome.untrained


def test_a_step_without_any_usable_group_is_skipped_and_names_them_all(
    tiny_llama: Path, group: Groups, closing: Close
) -> None:
    batch, _ = batch_of([group("a", 1), group("b", 2)], closing)
    for sequence in [sequence for ready in batch for sequence in ready.sequences]:
        sequence.advantages_T[sequence.mask_T] = np.inf
    outcome, weights = stepped(tiny_llama, batch)
    _, untouched = stepped(tiny_llama, [])
    assert (outcome.skipped, outcome.untrained) == (True, {"a": "not_finite", "b": "not_finite"})
    assert same(weights, untouched)


def test_a_batch_without_any_advantage_is_skipped(tiny_llama: Path, group: Groups) -> None:
    flat = tuple(to_sequence(event, advantage_scale=0.0) for event in group("g", 5))
    batch = [ReadyGroup(group_id="g", sequences=flat, left_out=0, zero_variance=True)]
    batch += [ReadyGroup(group_id="empty", sequences=(), left_out=2, zero_variance=False)]
    outcome, _ = stepped(tiny_llama, batch)
    assert (outcome.skipped, outcome.untrained) == (True, {"g": "no_signal"})


def one_token(logprob: torch.Tensor, behaviour: torch.Tensor, base: RatioBase, advantage: float) -> ActionTokens:
    return ActionTokens(
        logprobs_A=logprob,
        old_A=behaviour if base is RatioBase.BEHAVIOUR else logprob.detach(),
        behaviour_A=behaviour,
        advantages_A=torch.tensor([advantage], dtype=logprob.dtype),
        sequence_A=torch.zeros(1, dtype=torch.int64),
    )


@settings(max_examples=200, deadline=None)
@given(
    logprob=st.floats(-100, 0),
    behaviour=st.floats(-1e4, 1e4),
    reference=st.floats(-1e4, 0),
    advantage=st.floats(-1e6, 1e6),
    base=st.sampled_from(RatioBase),
    cap=st.sampled_from([None, 2.0]),
    said=st.sampled_from([*OBJECTIVES, Clipped(dual_clip=None)]),
    importance=st.sampled_from(Importance),
    kl=st.sampled_from(Kl),
)
def test_no_log_ratio_makes_the_loss_or_its_gradient_infinite(
    logprob: float, behaviour: float, reference: float, advantage: float, base: RatioBase, cap: float | None,
    said: str, importance: Importance, kl: Kl,
) -> None:  # fmt: skip
    logprobs = torch.tensor([logprob], dtype=torch.float32, requires_grad=True)
    loss, terms = row_loss(
        one_token(logprobs, torch.tensor([behaviour], dtype=torch.float32), base, advantage),
        weights_A=torch.ones(1),
        terms=LossTerms(objective_of(said), importance, importance_cap=cap, kl=0.1, kl_estimate=kl, ratio_base=base),
        reference_A=torch.tensor([reference], dtype=torch.float32),
    )
    loss.backward()
    assert logprobs.grad is not None
    for tensor in (loss, logprobs.grad, terms.importance_A, terms.kl_A):
        assert torch.isfinite(tensor).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(-19.5, 19.5))
def test_within_its_limit_a_ratio_is_the_plain_exponential(log_ratio: float) -> None:
    one, base = torch.tensor([-21.0], dtype=torch.float64), torch.tensor([-21.0 - log_ratio], dtype=torch.float64)
    weight, _ = importance_weights(one_token(one, base, RatioBase.TRAINER, 1.0), LossTerms(importance_cap=1e12))
    assert float(weight) == pytest.approx(float(np.exp(log_ratio)), rel=1e-10)
    assert float(kl_estimate(base, one, Kl.K3)) == pytest.approx(
        float(np.exp(log_ratio) - log_ratio - 1.0), rel=1e-10, abs=1e-10
    )
