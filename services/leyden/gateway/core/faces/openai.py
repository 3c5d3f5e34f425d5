"""Base classes of faces (a face translates one model API to and from chat completions), and OpenAI's three faces.

A face does not route or record. Requests are translated first. Replies are translated after `show` has removed what
only the record needs, so a face sees exactly what a caller of chat completions sees.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Api, JsonDict, Visible

REASONING = "reasoning"
"""Name of an assistant's reasoning in vLLM's chat API, in requests and replies. The older name is read too."""
OLD_REASONING = "reasoning_content"
TEXT_KINDS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
"""Types of content parts that are written as text. All others count as unseen."""
EMBEDDED = "prompt_embeds"
"""Field of a text completion: the prompt as vectors."""
THOUGHTS = ("thinking", "reasoning")
"""Types of content parts that are reasoning."""
ALWAYS_HIDDEN = ("prompt_text", "metrics")
CHOICE_HIDDEN = ("routed_experts",)
CHUNKS = ("chat.completion.chunk", "text_completion")
"""The `object` of stream chunks; a plain text completion has it too, and always has choices."""
MAX_KIND = 64
"""Maximum characters of a type, which callers choose."""
NO_ROUTE = (404, 405)
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class StreamFace(ABC):
    """Translates one streamed reply. Call `feed` for each shown chunk in order, then `end` or `error` once.

    The events from the chunk that finishes the last choice on, including those of `end`, are sent only after the call's
    record is in Kafka.
    """

    prompt_tokens: int = 0
    """Length of the prompt, set before the first `feed` if the engine reports it at the start; 0 if unknown."""
    kept: JsonDict | None = None
    """The whole reply, set by `end` if the API keeps replies; `ended` follows when it is kept."""

    @abstractmethod
    def feed(self, chunk: JsonDict) -> list[bytes]:
        """The events for a shown chunk, each with its final blank line."""

    @abstractmethod
    def end(self) -> list[bytes]:
        """The events after the last chunk of a complete reply."""

    def ended(self, kept: JsonDict) -> list[bytes]:
        """The last events of a reply that is kept, with the reply as it is kept."""
        return []

    @abstractmethod
    def error(self, refusal: Refusal) -> bytes:
        """The event for a failure during the stream. No event follows it."""

    def engine_error(self, chunk: JsonDict) -> bytes:
        """The event for a chunk that is an error from the engine."""
        return self.error(Refusal(500, "engine_error", message_of(chunk)))


class Face(ABC):
    """One model API."""

    route: str
    """Its path, such as `/v1/chat/completions`; recorded as `ModelCallRecorded.route`."""
    upstream_route = "/v1/chat/completions"
    """The engine's path to which requests are sent."""
    api = Api.CHAT
    """The API of `upstream_route`."""
    keeps = False
    """Whether replies are kept for later requests, which may refer to them."""

    def request(self, body: JsonDict) -> JsonDict:
        """The chat request for `body`: a new dict, or `body` itself. Raises a 400 `Refusal` with `param`."""
        return body

    def left_out(self, body: JsonDict) -> tuple[str, ...]:
        """Parts of the caller's request that could not be served and were left out; the reply's header names them."""
        return ()

    def response_id(self, chat_id: str) -> str:
        """The reply's id in this API, from the one that `RoutedCall.chat_id` gives it at the engine's."""
        return chat_id

    @abstractmethod
    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        """The reply without streaming, from the shown chat reply and the caller's request body."""

    @abstractmethod
    def stream(self, body: JsonDict) -> StreamFace:
        """A new stream for the caller's request body."""

    def error(self, refusal: Refusal) -> JsonDict:
        """The body of an error in this API's format."""
        return openai_error(refusal)

    def engine_error(self, status: int, body: bytes, call_id: str) -> bytes:
        """The body for an engine's error: unchanged if it has OpenAI's format, otherwise converted to it."""
        return body if _is_openai_error(body) and not _no_route(status, body) else self.retold(status, body, call_id)

    def retold(self, status: int, body: bytes, call_id: str) -> bytes:
        """An engine's error in this API's format."""
        refusal = engine_refusal(status, body)
        if _no_route(status, body):
            text = f"the server of this model does not serve {self.upstream_route}"
            refusal = Refusal(status, "api_not_served", text, param="model")
        refusal.request_id = call_id
        return orjson.dumps(self.error(refusal))


def engine_refusal(status: int, body: bytes) -> Refusal:
    """An engine's error as a `Refusal`, for conversion to another format."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal(status, "engine_error", body[:500].decode("utf-8", "replace") or f"the engine answered {status}")
    error = parsed.get("error") if isinstance(parsed, dict) else None
    param = error.get("param") if isinstance(error, dict) else None
    return Refusal(status, "engine_error", message_of(parsed), param=param if isinstance(param, str) else None)


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """The reasoning of a message or delta, under either of the two names that servers use."""
    text = message.get(REASONING) or message.get(OLD_REASONING)
    return text if isinstance(text, str) else None


def plain_content(message: JsonDict, beside: object) -> None:
    """Write the content of a message or delta as text where it is a list of texts; thoughts become its reasoning.

    A list with other parts stays as it is. `beside` is the `text` of its choice, for a message that has none.
    """
    parts = message.get("content") or beside
    if isinstance(parts, str):
        message["content"] = parts
    if not isinstance(parts, list):
        return
    kinds = [part.get("type", "text") if isinstance(part, dict) else "text" for part in parts]
    if not set(kinds) <= {*TEXT_KINDS, *THOUGHTS}:
        return
    said = [(kind in THOUGHTS, _text_in(part)) for kind, part in zip(kinds, parts, strict=True)]
    message["content"] = "".join(text for is_thought, text in said if not is_thought)
    if thought := "".join(text for is_thought, text in said if is_thought):
        message[REASONING] = f"{message.get(REASONING) or ''}{thought}"


def _text_in(part: object) -> str:
    """The text of a part, however deep."""
    if isinstance(part, dict):
        return _text_in(next((part[name] for name in ("text", *THOUGHTS, "refusal") if part.get(name)), None))
    return "".join(map(_text_in, part)) if isinstance(part, list) else part if isinstance(part, str) else ""


def show(piece: JsonDict, visible: Visible, model: str, chat_id: str) -> JsonDict | None:
    """The reply or chunk for the caller (changed in place); None for a chunk that only the record needs."""
    if "error" in piece:
        return piece
    if "id" in piece or "choices" in piece:
        piece["id"] = chat_id
    if visible.untouched:
        return None if piece.get("usage") and not piece.get("choices") and _unasked_usage(piece, visible) else piece
    if not piece.get("choices") and _unasked_usage(piece, visible):
        return None
    if _unasked_usage(piece, visible) and (piece["object"] == CHUNKS[0] or piece.get("usage") is None):
        piece.pop("usage", None)
    of_piece, of_choice = _hidden(visible)
    for name in of_piece:
        piece.pop(name, None)
    for choice in piece.get("choices") or ():
        for name in of_choice:
            choice.pop(name, None)
        if not visible.logprobs:
            choice["logprobs"] = None
    piece["model"] = model
    return piece


@cache
def _hidden(visible: Visible) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fields removed from a reply or chunk, and from its choices."""
    of_piece, of_choice = list(ALWAYS_HIDDEN), list(CHOICE_HIDDEN)
    if not visible.token_ids:
        of_piece.append("prompt_token_ids")
        of_choice += ("token_ids", "prompt_token_ids")
    if not visible.prompt_logprobs:
        of_piece.append("prompt_logprobs")
    if not visible.kv_transfer_params:
        of_piece.append("kv_transfer_params")
    return tuple(of_piece), tuple(of_choice)


def _unasked_usage(piece: JsonDict, visible: Visible) -> bool:
    return piece.get("object") in CHUNKS and not visible.usage_chunk


def unseen_parts(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Sorted types of content in a chat request or text completion that token ids do not carry, such as `image_url`."""
    found = {EMBEDDED} if request.get(EMBEDDED) is not None else set()
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list | dict):
            parts = content if isinstance(content, list) else [content]
            found.update(kind for part in parts if (kind := _unseen(part)) is not None)
    return tuple(sorted(found))


def _unseen(part: object) -> str | None:
    """The type of a part that is not text. In vLLM the fields decide if it has no type, or a `uuid`."""
    if isinstance(part, str):
        return None
    if not isinstance(part, dict):
        return "unknown"
    kind = part.get("type")
    if isinstance(kind, str) and kind not in TEXT_KINDS:
        return kind[:MAX_KIND]
    if isinstance(kind, str) and "uuid" not in part:
        return None
    return next((str(name)[:MAX_KIND] for name in sorted(part) if name not in ("type", "text", "uuid")), None)


def message_of(body: object) -> str:
    """The message of an error in OpenAI's format; for anything else, its text. At most 500 characters."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    text = error.get("message", error) if isinstance(error, Mapping) else error
    return str(text)[:500]


def kind_of(status: int) -> str:
    """OpenAI's error `type` for a status."""
    return KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")


def openai_error(refusal: Refusal) -> JsonDict:
    """The body of an error in OpenAI's format."""
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
    """Whether a server has no such route, judged by the error texts of web frameworks."""
    return status in NO_ROUTE and any(words in body for words in (b"Not Found", b"Method Not Allowed"))


def _is_openai_error(body: bytes) -> bool:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and isinstance(parsed.get("error"), dict)


DONE = data_event(b"[DONE]")


class OpenAIStream(StreamFace):
    """Chunks unchanged, then `[DONE]`, except after an error."""

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
    """OpenAI text completions: text or token ids in, text out."""

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
