"""The Responses API as a face."""

from leyden.gateway.core.faces.base import Face
from leyden.gateway.core.faces.responses.reply import response, response_id
from leyden.gateway.core.faces.responses.request import chat_request
from leyden.gateway.core.faces.responses.stream import ResponseEvents
from leyden.gateway.core.prepare import JsonDict


class ResponsesFace(Face):
    """OpenAI responses."""

    route = "/v1/responses"

    def request(self, body: JsonDict) -> JsonDict:
        return chat_request(body)

    def response_id(self, engine_id: str) -> str:
        return response_id(engine_id)

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        return response(shown, body)

    def stream(self, body: JsonDict) -> ResponseEvents:
        return ResponseEvents(body)


RESPONSES = ResponsesFace()
