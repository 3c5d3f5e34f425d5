"""`/v1/completions`: text completions, answered by the engine's own route; the record is that of a chat call."""

from leyden.gateway.core.faces.base import Face
from leyden.gateway.core.faces.chat import OpenAIStream
from leyden.gateway.core.prepare import Dialect, JsonDict


class CompletionsFace(Face):
    """OpenAI text completions: a text or token ids in, a text out."""

    route = upstream_route = "/v1/completions"
    dialect = Dialect.TEXT

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return shown

    def stream(self, body: JsonDict) -> OpenAIStream:
        return OpenAIStream()


COMPLETIONS = CompletionsFace()
