"""`/v1/chat/completions`: the identity. The caller sees what the engine says, less what only the record needs."""

import orjson

from leyden.gateway.core.faces.base import Face, StreamFace, data_event, openai_error
from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal

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
