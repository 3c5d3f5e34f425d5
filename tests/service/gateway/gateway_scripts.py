"""What a policy server says, as scripts: one script answers plain and streamed, the way vLLM does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

VERSION_HEADERS = {"x-leyden-policy-version": "policy@3"}
PROMPT = [1, 2, 3]


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@dataclass
class Says:
    """One choice of an answer, `n` times; its texts come in pieces of two characters when streamed."""

    content: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str | None = None
    finish: str = "stop"
    stop_reason: str | None = None
    cached: int = 0

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not body.get("stream"):
            return web.json_response(self.plain(body), headers=VERSION_HEADERS)
        return await events(request, self.chunks(body))

    def plain(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.content, "reasoning": self.reasoning}
        choice = {
            "message": message | {"tool_calls": self.tool_calls},
            "logprobs": self._logprobs(body, 2),
            "token_ids": [7, 8],
            "finish_reason": self.finish,
            "stop_reason": self.stop_reason,
        }
        choices = [{"index": index} | choice for index in range(body.get("n") or 1)]
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return head | {"choices": choices, "usage": self.usage(body), "prompt_token_ids": PROMPT}

    def chunks(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        made: list[dict[str, Any]] = []
        for index in range(body.get("n") or 1):
            deltas = [{"role": "assistant", "content": ""}, *self._deltas()]
            for number, delta in enumerate(deltas):
                last = number == len(deltas) - 1
                tokens = ([7] if number == 1 else []) + ([8] if last else [])
                choice = {
                    "index": index,
                    "delta": delta,
                    "logprobs": self._logprobs(body, len(tokens)) if tokens else None,
                    "token_ids": tokens,
                    "finish_reason": self.finish if last else None,
                    "stop_reason": self.stop_reason if last else None,
                }
                made.append(head | {"choices": [choice]} | ({} if number else {"prompt_token_ids": PROMPT}))
        return [*made, head | {"choices": [], "usage": self.usage(body)}]

    def usage(self, body: dict[str, Any]) -> dict[str, Any]:
        completion = 2 * (body.get("n") or 1)
        counts = {"prompt_tokens": 3, "completion_tokens": completion, "total_tokens": 3 + completion}
        return counts | {"prompt_tokens_details": {"cached_tokens": self.cached} if self.cached else None}

    def _deltas(self) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = [{"reasoning": piece} for piece in _pieces(self.reasoning)]
        deltas += [{"content": piece} for piece in _pieces(self.content)]
        for index, call in enumerate(self.tool_calls):
            name = {"name": call["function"]["name"], "arguments": ""}
            deltas.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": name}]})
            for piece in _pieces(call["function"]["arguments"]):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        return deltas or [{}]

    @staticmethod
    def _logprobs(body: dict[str, Any], tokens: int) -> dict[str, Any]:
        likely = [{"token": "x", "logprob": -0.5, "bytes": [120]}] * (body.get("top_logprobs") or 0)
        return {"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": likely}] * tokens}


@dataclass
class Completes:
    """A text completion."""

    text: str = "Hi!"

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choices = [self._choice(body, index, self.text, [7, 8], "stop") for index in range(body.get("n") or 1)]
            made = 2 * len(choices)
            usage = {"prompt_tokens": 3, "completion_tokens": made, "total_tokens": 3 + made}
            return web.json_response(head | {"choices": choices, "usage": usage}, headers=VERSION_HEADERS)
        first = self._choice(body, 0, self.text[:2], [7], None)
        last = self._choice(body, 0, self.text[2:], [8], "stop") | {"prompt_token_ids": None}
        chunks = [head | {"choices": [choice], "usage": None} for choice in (first, last)]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return await events(request, [*chunks, head | {"choices": [], "usage": usage}])

    @staticmethod
    def _choice(body: dict[str, Any], index: int, text: str, tokens: list[int], finish: str | None) -> dict[str, Any]:
        probs = {
            "text_offset": [0] * len(tokens),
            "token_logprobs": [-0.5] * len(tokens),
            "tokens": ["x"] * len(tokens),
            "top_logprobs": [{"x": -0.5}] * len(tokens),
        }
        told = body.get("return_token_ids")
        return {
            "index": index,
            "text": text,
            "logprobs": probs if body.get("logprobs") is not None else None,
            "finish_reason": finish,
            "stop_reason": None,
            "token_ids": tokens if told else None,
            "prompt_logprobs": None,
            "prompt_token_ids": PROMPT if told else None,
            "routed_experts": None,
        }


async def events(request: web.Request, chunks: Sequence[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers=VERSION_HEADERS)
    response.content_type = "text/event-stream"
    await response.prepare(request)
    for chunk in chunks:
        await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def fails(status: int, message: str, **headers: str) -> Any:
    """An engine's error answer."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        error = {"message": message, "type": "SomeError", "param": None, "code": status}
        return web.json_response({"error": error}, status=status, headers=VERSION_HEADERS | headers)

    return reply


def _pieces(text: str | None) -> list[str]:
    return [text[at : at + 2] for at in range(0, len(text), 2)] if text else []
