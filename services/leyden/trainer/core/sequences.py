"""Training sequences as arrays, converted from the event. No torch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leyden.events import SequenceCredited, Transition, unpack_floats, unpack_ints
from leyden.events.base import MAX_REWARD, in_reward_range

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
LARGEST_INT32 = 2**31 - 1
LARGEST_VOCABULARY = 2**31
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
LOWEST_LOGPROB, HIGHEST_LOGPROB = -100.0, 1e-3
"""Range of a sampled token's logprob. No sampler draws a token of probability e^-100: engines write such numbers (vLLM
-9999) where they have none. Above 0 only rounding can be."""
LOWEST_TEMPERATURE = 1e-5
"""vLLM samples greedily below this."""


@dataclass(frozen=True, eq=False)
class TrainSequence:
    """A sequence of T tokens. The mask marks the policy's tokens; the others are context."""

    sequence_id: str
    group_id: str
    rollout: tuple[str, int]
    """(rollout id, attempt): the unit of rollout-mean aggregation."""
    token_ids_T: Ints
    mask_T: Bools
    behaviour_logprobs_T: Floats
    """Logprobs of the serving engine, at the sampling temperature; 0 outside the mask."""
    advantages_T: Floats
    temperature_T: Floats
    versions_T: Ints
    """Policy version that sampled each token; -1 outside the mask."""
    reward: float
    origins: tuple[str, ...]

    @property
    def action_positions(self) -> npt.NDArray[np.intp]:
        """Positions of the policy's tokens, ascending."""
        return np.flatnonzero(self.mask_T)

    @property
    def action_tokens(self) -> int:
        """Number of the policy's tokens."""
        return int(self.mask_T.sum())

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy version among its tokens; None if it has no action tokens."""
        return int(self.versions_T[self.mask_T].min()) if self.action_tokens else None

    @property
    def has_signal(self) -> bool:
        """Whether any advantage differs from 0. If none does, the policy gradient is exactly 0."""
        return bool(np.any(self.advantages_T[self.mask_T] != 0.0))


def to_sequence(
    event: SequenceCredited, advantage_scale: float = 1.0, vocabulary: int = LARGEST_VOCABULARY
) -> TrainSequence:
    """Convert the event, for a model with token ids below `vocabulary`.

    Raises ValueError if its spans or lengths do not match its tokens, for a token id that the model does not have, for
    logprobs, temperatures and rewards that cannot be, and for numbers that are not finite as float32.

    A greedy action (temperature 0) becomes context: it was not sampled, so it has no policy gradient.
    """
    token_ids_T = unpack_ints(event.token_ids)
    behaviour_T = unpack_floats(event.behaviour_logprobs)
    if len(behaviour_T) != len(token_ids_T):
        raise ValueError(f"{len(behaviour_T)} behaviour logprobs for {len(token_ids_T)} tokens")
    if not np.isfinite(behaviour_T).all():
        raise ValueError("a behaviour logprob is not finite")
    if len(token_ids_T) and not 0 <= token_ids_T.min() <= token_ids_T.max() < vocabulary:
        raise ValueError(f"token ids from {token_ids_T.min()} to {token_ids_T.max()} in a vocabulary of {vocabulary}")
    if not in_reward_range(event.rollout_reward):
        raise ValueError(f"the rollout's reward {event.rollout_reward:g} is not within ±{MAX_REWARD:g}")
    sequence = TrainSequence(
        sequence_id=event.event_id,
        group_id=event.group_id,
        rollout=(event.rollout_id, event.attempt),
        token_ids_T=token_ids_T,
        mask_T=np.zeros(len(token_ids_T), np.bool_),
        behaviour_logprobs_T=behaviour_T,
        advantages_T=np.zeros(len(token_ids_T), np.float32),
        temperature_T=np.ones(len(token_ids_T), np.float32),
        versions_T=np.full(len(token_ids_T), -1, np.int32),
        reward=event.rollout_reward,
        origins=tuple(transition.origin for transition in event.transitions),
    )
    for transition in event.transitions:
        _mark(sequence, transition, advantage_scale)
    return sequence


def _mark(sequence: TrainSequence, transition: Transition, advantage_scale: float) -> None:
    """Fill in the span of one action."""
    start, end = transition.start, transition.end
    if not 1 <= start <= end <= len(sequence.token_ids_T):
        raise ValueError(
            f"action {start}:{end} does not fit {len(sequence.token_ids_T)} tokens after a first state token"
        )
    if sequence.mask_T[start:end].any():
        raise ValueError(f"action {start}:{end} overlaps another action")
    if transition.temperature <= 0.0:
        return
    if transition.temperature < LOWEST_TEMPERATURE:
        raise ValueError(f"temperature {transition.temperature:g} is below {LOWEST_TEMPERATURE:g}")
    behaviour_T = sequence.behaviour_logprobs_T[start:end]
    if beyond := [float(one) for one in behaviour_T if not LOWEST_LOGPROB <= one <= HIGHEST_LOGPROB]:
        raise ValueError(f"behaviour logprob {beyond[0]:g} of action {start}:{end} is no sampled token's")
    sequence.mask_T[start:end] = True
    sequence.advantages_T[start:end] = _float32("advantage", transition.advantage * advantage_scale)
    sequence.temperature_T[start:end] = _float32("temperature", transition.temperature)
    if not 0 <= transition.policy_version <= LARGEST_INT32:
        raise ValueError(f"policy version {transition.policy_version} is not between 0 and {LARGEST_INT32}")
    sequence.versions_T[start:end] = transition.policy_version


def _float32(what: str, value: float) -> float:
    if not abs(value) <= LARGEST_FLOAT32:
        raise ValueError(f"{what} {value:g} is not a finite float32")
    return value
