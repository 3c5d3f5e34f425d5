"""What a face is: one model API, translated to and from chat completions; and OpenAI's own three.

A face decides nothing about routing or recording. Requests are translated before anything else happens; replies after
`show` took out what only the record needs, so that a face sees exactly what a caller of chat completions would.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import orjson

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Api, JsonDict

REASONING = "reasoning"
"""What vLLM's chat API calls an assistant's reasoning in requests and replies; its older name is read too."""
OLD_REASONING = "reasoning_content"
NO_ROUTE = (404, 405)
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class StreamFace(ABC):
    """One streamed reply in a face's events. `feed` for each shown chunk in order, then `end` once, or `error` once.

    What `feed` gives for the chunk that finishes the last choice, and all after it, leaves only when the call's record
    is in Kafka; so does what `end` gives.
    """

    prompt_tokens: int = 0
    """How long the prompt was, set before the first `feed` where the engine says so up front; 0 when unknown."""

    @abstractmethod
    def feed(self, chunk: JsonDict) -> list[bytes]:
        """The events (whole, with their blank line) that a shown chunk makes."""

    @abstractmethod
    def end(self) -> list[bytes]:
        """The events after the last chunk of a reply that came whole."""

    @abstractmethod
    def error(self, refusal: Refusal) -> bytes:
        """The event that tells of a failure in the middle of a stream; nothing follows it."""

    def engine_error(self, chunk: JsonDict) -> bytes:
        """The event for a chunk that is the engine's own error."""
        return self.error(Refusal(500, "engine_error", message_of(chunk)))


class Face(ABC):
    """One model API."""

    route: str
    """Its path, such as `/v1/chat/completions`: what `ModelCallRecorded.route` says."""
    upstream_route = "/v1/chat/completions"
    """The engine's path that answers it."""
    api = Api.CHAT
    """The form of what is asked and answered there."""

    def request(self, body: JsonDict) -> JsonDict:
        """The chat request that `body` means; a new dict or `body` itself. Raises a 400 `Refusal` with `param`."""
        return body

    def response_id(self, engine_id: str) -> str:
        """The id that the caller sees in place of the engine's."""
        return engine_id

    @abstractmethod
    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        """The plain reply, from the shown chat reply and the caller's own body."""

    @abstractmethod
    def stream(self, body: JsonDict) -> StreamFace:
        """A new stream for the caller's own body."""

    def error(self, refusal: Refusal) -> JsonDict:
        """The body of an error."""
        return openai_error(refusal)

    def engine_error(self, status: int, body: bytes, call_id: str) -> bytes:
        """The body of an engine's error answer: passed on where it has OpenAI's shape, told in it where not."""
        return body if _is_openai_error(body) and not _no_route(status, body) else self.retold(status, body, call_id)

    def retold(self, status: int, body: bytes, call_id: str) -> bytes:
        """An engine's error answer in this face's shape."""
        refusal = engine_refusal(status, body)
        if _no_route(status, body):
            text = f"what answers for this model does not serve {self.upstream_route}"
            refusal = Refusal(status, "api_not_served", text, param="model")
        refusal.request_id = call_id
        return orjson.dumps(self.error(refusal))


def engine_refusal(status: int, body: bytes) -> Refusal:
    """An engine's error answer as a refusal, to be told in another shape."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal(status, "engine_error", body[:500].decode("utf-8", "replace") or f"the engine answered {status}")
    error = parsed.get("error") if isinstance(parsed, dict) else None
    param = error.get("param") if isinstance(error, dict) else None
    return Refusal(status, "engine_error", message_of(parsed), param=param if isinstance(param, str) else None)


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """A message's or a delta's reasoning, by either of the names that servers have for it."""
    text = message.get(REASONING) or message.get(OLD_REASONING)
    return text if isinstance(text, str) else None


def message_of(body: object) -> str:
    """The message of an error in OpenAI's shape, or as much of anything else as helps."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    text = error.get("message", error) if isinstance(error, Mapping) else error
    return str(text)[:500]


def kind_of(status: int) -> str:
    """The error's `type`, by status."""
    return KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")


def openai_error(refusal: Refusal) -> JsonDict:
    """The body of an error in OpenAI's shape."""
    return {
        "error": {
            "message": refusal.message,
            "type": kind_of(refusal.status),
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def data_event(payload: bytes) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, payload: JsonDict) -> bytes:
    """A server-sent event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"


def _no_route(status: int, body: bytes) -> bool:
    """Whether a server says that it has no such route at all, as web frameworks do."""
    return status in NO_ROUTE and any(words in body for words in (b"Not Found", b"Method Not Allowed"))


def _is_openai_error(body: bytes) -> bool:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and isinstance(parsed.get("error"), dict)


DONE = data_event(b"[DONE]")


class OpenAIStream(StreamFace):
    """Chunks as they are, then `[DONE]`; after an error no `[DONE]` follows."""

    def feed(self, chunk: JsonDict) -> list[bytes]:
        return [data_event(orjson.dumps(chunk))]

    def end(self) -> list[bytes]:
        return [DONE]

    def error(self, refusal: Refusal) -> bytes:
        return data_event(orjson.dumps(openai_error(refusal)))

    def engine_error(self, chunk: JsonDict) -> bytes:
        return data_event(orjson.dumps(chunk))


class ChatFace(Face):
    """OpenAI chat completions."""

    route = "/v1/chat/completions"

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return shown

    def stream(self, body: JsonDict) -> OpenAIStream:
        return OpenAIStream()


CHAT = ChatFace()


class CompletionsFace(Face):
    """OpenAI text completions: a text or token ids in, a text out."""

    route = upstream_route = "/v1/completions"
    api = Api.COMPLETIONS

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return shown

    def stream(self, body: JsonDict) -> OpenAIStream:
        return OpenAIStream()


COMPLETIONS = CompletionsFace()


class EmbeddingsFace(Face):
    """OpenAI embeddings."""

    route = upstream_route = "/v1/embeddings"
    api = Api.EMBEDDINGS

    def request(self, body: JsonDict) -> JsonDict:
        if body.get("stream"):
            raise Refusal(400, "invalid_request", "embeddings are not streamed", param="stream")
        return body

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return shown

    def stream(self, body: JsonDict) -> OpenAIStream:
        return OpenAIStream()


EMBEDDINGS = EmbeddingsFace()
