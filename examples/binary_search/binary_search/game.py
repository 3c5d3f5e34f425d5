"""The game: find a secret number in five guesses; each is answered 'higher' or 'lower'. No model, no randomness.

The policy's prompt is what the answers so far have told, so two rollouts that know the same are in exactly the same
state, whatever they guessed on the way.
"""

from dataclasses import dataclass
from enum import IntEnum

NUMBERS = 16
MAX_GUESSES = 5
"""Halving finds any of 16 numbers in five; four would leave one out."""

OUTCOME = 1.0
"""Reward of the rollout when the secret was found."""
POINTLESS = -0.5
"""Reward of a guess that the answers so far rule out, or that is no number: two of them cost what finding gives."""


class Word(IntEnum):
    """The tokens that are no number; number n, from 0 to 17, is token n."""

    HIGHER = 18
    LOWER = 19
    GUESSES = 20
    FOUND = 21


VOCABULARY = 22
PROMPT_TOKENS = 6


@dataclass
class Game:
    """One game about `secret`, which the answers say is above `low` and below `high`."""

    secret: int
    pointless: float = POINTLESS
    low: int = 0
    high: int = NUMBERS + 1
    guesses: int = 0
    found: bool = False

    @property
    def over(self) -> bool:
        """Whether there is nothing left to guess."""
        return self.found or self.guesses == MAX_GUESSES

    @property
    def prompt(self) -> tuple[int, ...]:
        """What the policy sees, such as: higher than 4, lower than 9, guesses left 3."""
        return (Word.HIGHER, self.low, Word.LOWER, self.high, Word.GUESSES, MAX_GUESSES - self.guesses)

    def guess(self, token: int) -> float:
        """Take the policy's token and give its own reward; a pointless guess is used up and tells nothing."""
        assert not self.over
        self.guesses += 1
        if not self.low < token < self.high:
            return self.pointless
        self.found = token == self.secret
        if self.secret > token:
            self.low = token
        else:
            self.high = token
        return 0.0


def halving(prompt: tuple[int, ...]) -> int:
    """The guess of a perfect player who sees `prompt`: the middle of what is left."""
    return (prompt[1] + prompt[3]) // 2
