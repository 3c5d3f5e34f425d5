"""`/v1/messages/count_tokens`: Anthropic's way to ask how long a prompt is, answered by the engine's tokenizer."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.faces import MESSAGES
from leyden.gateway.core.faces.messages import count_request
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.handlers.counting import TokenCounter
from leyden.gateway.handlers.sent import Failed
from leyden.gateway.http.answers import json_answer
from leyden.gateway.http.errors import face_shape, request_ids, telling
from leyden.gateway.http.intake import Limiter, json_object, read_body
from leyden.gateway.http.model_api import ROLLOUT_PREFIX, bind_request


@dataclass(frozen=True)
class CountingApi:
    """What counting is made of."""

    keys: KeyRing
    counter: TokenCounter
    limiter: Limiter
    max_body_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The route, with and without a rollout in front."""
        told = telling(face_shape(MESSAGES), self.retry_after_s)(self._count)
        return [Route(f"{prefix}/v1/messages/count_tokens", told, methods=["POST"]) for prefix in ("", ROLLOUT_PREFIX)]

    async def _count(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        ids = request_ids()
        with self.limiter.slot():
            asked = json_object(await read_body(request, self.max_body_bytes))
            prompt = count_request(asked)
            caller.must_use(asked.get("model"))
            try:
                count = await self.counter.count(asked.get("model"), prompt)
            except Failed as failed:
                body = MESSAGES.engine_error(failed.status, failed.body, ids["request-id"])
                return Response(body, failed.status, ids, media_type="application/json")
        return json_answer({"input_tokens": count}, headers=ids)
