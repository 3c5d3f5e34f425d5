"""`GET /openapi.json`: the document, to whoever has a key; only health is told without one."""

from dataclasses import dataclass
from functools import cached_property

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from leyden.gateway.core.keys import Caller
from leyden.gateway.http.desk import Desk
from leyden.gateway.http.openapi.document import document


@dataclass
class DocumentApi:
    """What the document's route is made of."""

    desk: Desk

    def routes(self) -> list[BaseRoute]:
        """The one route."""
        return [self.desk.route("GET", "/openapi.json", self._document)]

    @cached_property
    def _told(self) -> bytes:
        return orjson.dumps(document())

    async def _document(self, _: Request, __: Caller) -> Response:
        return Response(self._told, media_type="application/json")
