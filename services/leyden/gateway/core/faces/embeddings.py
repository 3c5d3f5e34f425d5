"""`/v1/embeddings`: passed through to whoever has them, and recorded without tokens."""

from leyden.gateway.core.faces.base import Face
from leyden.gateway.core.faces.chat import OpenAIStream
from leyden.gateway.core.prepare import Dialect, JsonDict
from leyden.gateway.core.refusals import Refusal


class EmbeddingsFace(Face):
    """OpenAI embeddings."""

    route = upstream_route = "/v1/embeddings"
    dialect = Dialect.VECTORS

    def request(self, body: JsonDict) -> JsonDict:
        if body.get("stream"):
            raise Refusal(400, "invalid_request", "embeddings are not streamed", param="stream")
        return body

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return shown

    def stream(self, body: JsonDict) -> OpenAIStream:
        return OpenAIStream()


EMBEDDINGS = EmbeddingsFace()
