"""One sequence being generated: plain data between the HTTP side and the scheduler's thread."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one sequence are drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 16
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int = 0
    special_tokens: bool = False
    """Special tokens are written out in the text, but for the one that ends the answer."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken (vLLM draws the line at the same place)."""
        return self.temperature < 1e-5

    def with_special_tokens(self, written: bool) -> "Sampling":
        """The same, with special tokens written out or not."""
        return replace(self, special_tokens=written)


@dataclass(frozen=True, slots=True)
class Delta:
    """One token of one sequence, or the news that it failed."""

    index: int
    token: int = -1
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    text: str = ""
    finish: str | None = None
    error: str | None = None


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt, how to continue it, and who hears of its tokens (called on the scheduler's thread)."""

    index: int
    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[Delta], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
