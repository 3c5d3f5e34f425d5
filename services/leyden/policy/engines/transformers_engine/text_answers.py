"""Builds OpenAI's JSON for text completions, complete and streamed."""

from collections.abc import Sequence
from typing import Any

from leyden.policy.engines.transformers_engine.answers import Answers, Json
from leyden.policy.engines.transformers_engine.protocol import CompletionRequest
from leyden.policy.engines.transformers_engine.sequence import Delta


class TextAnswers(Answers):
    """The response to one or several prompts."""

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"
    _request: CompletionRequest

    def __init__(self, request: CompletionRequest, prompts: Sequence[list[int]], tokenizer: Any) -> None:
        super().__init__(request, prompts, tokenizer)
        self._sent = [0] * (request.n * len(prompts))
        """Number of characters sent so far, by choice."""
        self._begun: set[int] = set()

    def _choice(self, index: int, deltas: Sequence[Delta]) -> Json:
        choice = {
            "index": index,
            "text": "".join(delta.text for delta in deltas),
            "logprobs": self._logprobs(deltas),
            "finish_reason": deltas[-1].finish,
        }
        return choice | self._ids(deltas) | self._prompt_ids(index)

    def _piece(self, delta: Delta) -> Json:
        return self._choice(delta.index, [delta])

    def _prompt_ids(self, index: int) -> Json:
        """The prompt's token ids, if requested, in the first chunk of each choice."""
        if not self._request.return_token_ids or index in self._begun:
            return {}
        self._begun.add(index)
        return {"prompt_token_ids": self._prompts[index // self._request.n]}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        if self._request.logprobs is None:
            return None
        offsets = []
        for delta in deltas:
            offsets.append(self._sent[delta.index])
            self._sent[delta.index] += len(delta.text)
        return {
            "text_offset": offsets,
            "tokens": [self._text(delta.token) for delta in deltas],
            "token_logprobs": [delta.logprob for delta in deltas],
            "top_logprobs": [self._likeliest(delta) for delta in deltas],
        }

    def _likeliest(self, delta: Delta) -> dict[str, float]:
        return {self._text(token): logprob for token, logprob in (*delta.top, (delta.token, delta.logprob))}
