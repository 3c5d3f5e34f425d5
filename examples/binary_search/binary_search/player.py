"""Games played in a batch by a causal LM: one forward pass a turn, sampled at temperature 1, with its logprobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from binary_search.game import MAX_GUESSES, POINTLESS, Game


@dataclass(frozen=True)
class Action:
    """One guess: what the policy saw, what it said, how probable that was, and what it alone earned."""

    prompt: tuple[int, ...]
    token: int
    logprob: float
    reward: float


@dataclass(frozen=True)
class Played:
    """A game that is over, with its guesses in order."""

    secret: int
    actions: tuple[Action, ...]
    found: bool


@torch.no_grad()
def play(
    model: Any, secrets_B: Sequence[int], generator: torch.Generator | None, pointless: float = POINTLESS
) -> list[Played]:
    """One game for each secret, in their order; without a generator every guess is the most probable token.

    A model of this size needs no cache of keys.
    """
    games = [Game(secret, pointless) for secret in secrets_B]
    actions: list[list[Action]] = [[] for _ in games]
    for _ in range(MAX_GUESSES):
        running = [index for index, game in enumerate(games) if not game.over]
        if not running:
            break
        prompts = [games[index].prompt for index in running]
        logprobs_BV = _logprobs(model, prompts)
        if generator is None:
            tokens_B = logprobs_BV.argmax(dim=-1)
        else:
            tokens_B = torch.multinomial(logprobs_BV.exp(), 1, generator=generator)[:, 0]
        chosen_B = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
        for index, prompt, token, logprob in zip(running, prompts, tokens_B.tolist(), chosen_B.tolist(), strict=True):
            actions[index].append(Action(prompt, token, logprob, games[index].guess(token)))
    return [Played(game.secret, tuple(taken), game.found) for game, taken in zip(games, actions, strict=True)]


def _logprobs(model: Any, prompts_B: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Logprobs [B, V] of the next token; equal states are computed once, and all have the same number of tokens."""
    place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts_B))}
    logits_UV = model(input_ids=torch.tensor(list(place)), use_cache=False).logits[:, -1].float()
    return torch.Tensor(logits_UV.log_softmax(dim=-1)[[place[prompt] for prompt in prompts_B]])
