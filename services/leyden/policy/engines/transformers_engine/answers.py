"""The JSON that chat and text responses have in common."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from leyden.policy.engines.transformers_engine.protocol import SamplingRequest
from leyden.policy.engines.transformers_engine.sequence import Delta

Json = dict[str, Any]


class Answers(ABC):
    """Builds the JSON of one request's response, complete or in chunks. Choices: `n` per prompt, in prompt order."""

    prefix: str
    """First part of the response id."""
    kind: str
    chunk_kind: str

    def __init__(self, request: SamplingRequest, prompts: Sequence[list[int]], tokenizer: Any) -> None:
        self._request = request
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, deltas: Sequence[Delta]) -> Json:
        """The complete response, from all deltas of all choices."""
        by_choice: list[list[Delta]] = [[] for _ in range(self._request.n * len(self._prompts))]
        for delta in deltas:
            by_choice[delta.index].append(delta)
        choices = [self._choice(index, own) for index, own in enumerate(by_choice)]
        return self._head(self.kind) | {"choices": choices, "usage": self._usage(len(deltas))}

    def opening(self) -> list[Json]:
        """The chunks sent before the first token."""
        return []

    def chunk(self, delta: Delta) -> Json:
        """The chunk for one token."""
        return self._head(self.chunk_kind) | {"choices": [self._piece(delta)]}

    def usage_chunk(self, completion_tokens: int) -> Json:
        """The last chunk, sent if `stream_options.include_usage` is set."""
        return self._head(self.chunk_kind) | {"choices": [], "usage": self._usage(completion_tokens)}

    @abstractmethod
    def _choice(self, index: int, deltas: Sequence[Delta]) -> Json: ...

    @abstractmethod
    def _piece(self, delta: Delta) -> Json: ...

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _usage(self, completion: int) -> Json:
        prompt = sum(map(len, self._prompts))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _ids(self, deltas: Sequence[Delta]) -> Json:
        """The token ids of `deltas`, if requested."""
        return {"token_ids": [delta.token for delta in deltas]} if self._request.return_token_ids else {}

    def _text(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))
