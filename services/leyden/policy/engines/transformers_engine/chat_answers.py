"""Builds OpenAI's JSON for chat completions, complete and streamed."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from leyden.policy.engines.transformers_engine.answers import Answers, Json
from leyden.policy.engines.transformers_engine.protocol import ChatRequest
from leyden.policy.engines.transformers_engine.sequence import Delta
from leyden.policy.engines.transformers_engine.tools import Call, ToolCallStream


class ChatAnswers(Answers):
    """The response to a chat request. `tools` creates a tool call parser for one choice."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    _request: ChatRequest

    def __init__(
        self,
        request: ChatRequest,
        prompt: list[int],
        tokenizer: Any,
        tools: Callable[[], ToolCallStream] | None = None,
    ) -> None:
        super().__init__(request, [prompt], tokenizer)
        self._tools = [tools() for _ in range(request.n)] if tools else []

    def whole(self, deltas: Sequence[Delta]) -> Json:
        return super().whole(deltas) | self._prompt_ids()

    def opening(self) -> list[Json]:
        """The role of every choice, and the prompt's token ids if requested."""
        role = {"role": "assistant", "content": ""}
        choices = [
            {"index": index, "delta": role, "logprobs": None, "finish_reason": None} for index in range(self._request.n)
        ]
        return [self._head(self.chunk_kind) | {"choices": choices} | self._prompt_ids()]

    def _choice(self, index: int, deltas: Sequence[Delta]) -> Json:
        read = [self._read(delta) for delta in deltas]
        text, calls = "".join(said for said, _ in read), [call for _, found in read for call in found]
        message: Json = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(deltas),
            "finish_reason": self._finish(deltas[-1]),
        } | self._ids(deltas)

    def _piece(self, delta: Delta) -> Json:
        said, calls = self._read(delta)
        return {
            "index": delta.index,
            "delta": ({"content": said} if said or not calls else {}) | ({"tool_calls": calls} if calls else {}),
            "logprobs": self._logprobs([delta]),
            "finish_reason": self._finish(delta),
        } | self._ids([delta])

    def _read(self, delta: Delta) -> tuple[str, list[Json]]:
        """Text and tool calls of a delta; calls are numbered within the choice."""
        if not self._tools:
            return delta.text, []
        reader = self._tools[delta.index]
        before = reader.called
        said, calls = reader.push(delta.text)
        if delta.finish:
            rest, last = reader.flush()
            said, calls = said + rest, calls + last
        numbered = [_call_json(call, index) for index, call in enumerate(calls, before)]
        return said, [call for call in numbered if self._request.parallel_tool_calls or call["index"] == 0]

    def _finish(self, delta: Delta) -> str | None:
        called = self._tools and self._tools[delta.index].called
        return "tool_calls" if called and delta.finish == "stop" else delta.finish

    def _prompt_ids(self) -> Json:
        return {"prompt_token_ids": self._prompts[0]} if self._request.return_token_ids else {}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        if not self._request.logprobs:
            return None
        content = [
            self._token(delta.token, delta.logprob) | {"top_logprobs": [self._token(*pair) for pair in delta.top]}
            for delta in deltas
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> Json:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _call_json(call: Call, index: int) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": index, "id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
