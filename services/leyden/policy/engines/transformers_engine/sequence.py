"""The data exchanged between HTTP handlers and the scheduler's thread."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one sequence."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 16
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int = 0
    special_tokens: bool = False
    """Whether the text contains special tokens, except the one that ends the response."""

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    def with_special_tokens(self, written: bool) -> "Sampling":
        """A copy with `special_tokens` set to `written`."""
        return replace(self, special_tokens=written)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One token of a sequence, or the error that ended it."""

    index: int
    token: int = -1
    logprob: float = 0.0
    """Of the distribution that the token was sampled from."""
    top: tuple[tuple[int, float], ...] = ()
    text: str = ""
    finish: str | None = None
    error: str | None = None


@dataclass(eq=False, slots=True)
class Sequence:
    """A sequence being generated. `deliver` is called on the scheduler's thread."""

    index: int
    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[Delta], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
