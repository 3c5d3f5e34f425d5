"""The learning rate of a step, as a function of its number alone: a resumed trainer needs no state for it."""

import math
from enum import StrEnum


class Decay(StrEnum):
    """How the learning rate falls after the warm-up, until `decay_steps`."""

    NONE = "none"
    LINEAR = "linear"
    COSINE = "cosine"


def learning_rate(
    step: int,
    peak: float,
    *,
    warmup_steps: int = 0,
    decay: Decay = Decay.NONE,
    decay_steps: int = 0,
    decay_to: float = 0.1,
) -> float:
    """The rate of step `step`, which counts from 0.

    It rises over `warmup_steps` steps to `peak`, then falls until step `decay_steps`, and stays at `decay_to` * `peak`:
    never 0, at which a step would make a version of the same weights.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if decay is Decay.NONE:
        return peak
    done = min(1.0, (step - warmup_steps) / max(decay_steps - warmup_steps, 1))
    above = 1.0 - done if decay is Decay.LINEAR else (1.0 + math.cos(math.pi * done)) / 2.0
    return peak * (decay_to + (1.0 - decay_to) * above)
