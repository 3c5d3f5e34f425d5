"""`GET /openapi.json`: the document, to whoever has a key; only health is told without one."""

from dataclasses import dataclass
from functools import cached_property

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.keys import KeyRing
from leyden.gateway.http.errors import leyden_shape, telling
from leyden.gateway.http.intake import credential
from leyden.gateway.http.openapi.document import document


@dataclass
class DocumentApi:
    """What the document's route is made of."""

    keys: KeyRing
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The one route."""
        return [Route("/openapi.json", telling(leyden_shape, self.retry_after_s)(self._document), methods=["GET"])]

    @cached_property
    def _told(self) -> bytes:
        return orjson.dumps(document())

    async def _document(self, request: Request) -> Response:
        self.keys.caller(credential(request))
        return Response(self._told, media_type="application/json")
