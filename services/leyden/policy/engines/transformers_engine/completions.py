"""OpenAI's JSON for chat completions, whole and streamed, from the engine's deltas. Pure."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from leyden.policy.engines.transformers_engine.protocol import ChatRequest
from leyden.policy.engines.transformers_engine.sequence import Delta

Json = dict[str, Any]


class Answer:
    """The JSON of one request's answer."""

    def __init__(self, request: ChatRequest, prompt: list[int], tokenizer: Any) -> None:
        self._request = request
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, deltas: Sequence[Delta]) -> Json:
        """The answer to a plain request, from all deltas of all choices."""
        by_choice: list[list[Delta]] = [[] for _ in range(self._request.n)]
        for delta in deltas:
            by_choice[delta.index].append(delta)
        choices = [self._choice(index, own) for index, own in enumerate(by_choice)]
        body = self._head("chat.completion") | {"choices": choices, "usage": self._usage(len(deltas))}
        return body | ({"prompt_token_ids": self._prompt} if self._request.return_token_ids else {})

    def opening(self) -> Json:
        """The first chunk: the role of every choice, and the prompt's token ids where they were asked for."""
        role = {"role": "assistant", "content": ""}
        choices = [self._chunk_choice(index, role, None, None) for index in range(self._request.n)]
        body = self._head("chat.completion.chunk") | {"choices": choices}
        return body | ({"prompt_token_ids": self._prompt} if self._request.return_token_ids else {})

    def chunk(self, delta: Delta) -> Json:
        """The chunk of one token."""
        logprobs = self._logprobs([delta])
        choice = self._chunk_choice(delta.index, {"content": delta.text}, logprobs, delta.finish)
        if self._request.return_token_ids:
            choice["token_ids"] = [delta.token]
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def usage_chunk(self, completion_tokens: int) -> Json:
        """The last chunk where `stream_options.include_usage` was set."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage(completion_tokens)}

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _usage(self, completion: int) -> Json:
        prompt = len(self._prompt)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> Json:
        content = "".join(delta.text for delta in deltas)
        choice: Json = {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": self._logprobs(deltas),
            "finish_reason": deltas[-1].finish,
        }
        if self._request.return_token_ids:
            choice["token_ids"] = [delta.token for delta in deltas]
        return choice

    @staticmethod
    def _chunk_choice(index: int, delta: Json, logprobs: Json | None, finish: str | None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        if not self._request.logprobs:
            return None
        content = [
            self._token(delta.token, delta.logprob) | {"top_logprobs": [self._token(*pair) for pair in delta.top]}
            for delta in deltas
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> Json:
        text = str(self._tokenizer.decode([token]))
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
