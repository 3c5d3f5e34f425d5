"""An engine that answers every chat call with the same bytes, as cheaply as Python can: what stands behind a proxy.

Its answers are vLLM's with `return_token_ids` and logprobs, whole or an event a token. Of a request it reads only where
it ends and whether it asks for a stream.
"""

import argparse
import asyncio
from typing import Any

import orjson
import uvloop

HEADERS = b"HTTP/1.1 200 OK\r\nx-leyden-policy-version: policy@1\r\n"
STREAM_HEADERS = HEADERS + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE_AND_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "served"}


def plain(prompt: int, response: int) -> bytes:
    """A whole answer, head and body."""
    message = {"role": "assistant", "content": "word " * response, "tool_calls": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "token_ids": [9] * response}
    choice["logprobs"] = {"content": [logprob() for _ in range(response)]}
    body = USAGE_AND_HEAD | {"object": "chat.completion", "choices": [choice], "usage": usage(prompt, response)}
    told = orjson.dumps(body | {"prompt_token_ids": [9] * prompt})
    return HEADERS + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(told) + told


def streamed(prompt: int, response: int) -> bytes:
    """A stream with an event for each token."""
    opening = chunk({"role": "assistant", "content": ""}, []) | {"prompt_token_ids": [9] * prompt}
    tokens = [chunk({"content": "word "}, [9]) for _ in range(response)]
    tokens[-1]["choices"][0]["finish_reason"] = "stop"
    last = chunk({}, []) | {"choices": [], "usage": usage(prompt, response)}
    payloads = [*(orjson.dumps(one) for one in (opening, *tokens, last)), b"[DONE]"]
    events = [b"data: " + payload + b"\n\n" for payload in payloads]
    return STREAM_HEADERS + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def chunk(delta: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """One chunk."""
    choice = {"index": 0, "delta": delta, "token_ids": tokens, "finish_reason": None}
    choice["logprobs"] = {"content": [logprob() for _ in tokens]} if tokens else None
    return USAGE_AND_HEAD | {"object": "chat.completion.chunk", "choices": [choice]}


def logprob() -> dict[str, Any]:
    """A token's."""
    return {"token": "word ", "logprob": -0.5, "bytes": list(b"word "), "top_logprobs": []}


def usage(prompt: int, response: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": response, "total_tokens": prompt + response}


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, whole: bytes, events: bytes) -> None:
        self._whole = whole
        self._events = events
        self._seen = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._seen[:end]).lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].partition(b"\r")[0]) if at >= 0 else 0
            body_end = end + 4 + length
            if len(self._seen) < body_end:
                return
            streams = self._seen.find(b'"stream":true', end, body_end) >= 0
            del self._seen[:body_end]
            self._transport.write(self._events if streams else self._whole)  # type: ignore[attr-defined]


async def serve(port: int, prompt: int, response: int) -> None:
    """Until the process ends."""
    whole, events = plain(prompt, response), streamed(prompt, response)
    server = await asyncio.get_running_loop().create_server(lambda: Answering(whole, events), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fixed_upstream", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--response-tokens", type=int, default=16)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.port, chosen.prompt_tokens, chosen.response_tokens))


if __name__ == "__main__":
    main()
