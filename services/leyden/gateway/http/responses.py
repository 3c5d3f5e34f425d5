"""The Responses API beside `POST /v1/responses`: kept responses, their input, and how long a prompt is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from leyden.gateway.core.faces import RESPONSES
from leyden.gateway.core.kept import page_of
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Binding, JsonDict, json_object
from leyden.gateway.handlers.admission import Limiter
from leyden.gateway.handlers.counting import PROMPT_FIELDS, TokenCounter
from leyden.gateway.handlers.kept import Kept
from leyden.gateway.handlers.servers import EngineError
from leyden.gateway.http.operations import Operation, json
from leyden.gateway.http.requests import App, Bodies, bind_request, face_shape, json_answer, request_ids

LOOKED = (400, 401, 403, 404, 429, 503)
COUNTED = (400, 401, 403, 404, 408, 413, 429, 502, 503, 504)
Answered = Callable[[Request, Binding], Awaitable[JsonDict]]


@dataclass(frozen=True, kw_only=True)
class ResponsesApi:
    """The dependencies of these routes."""

    keys: KeyRing
    kept: Kept
    counter: TokenCounter
    limiter: Limiter
    bodies: Bodies
    retry_after_s: float

    def operations(self) -> list[Operation]:
        """One operation per route."""
        one = "/v1/responses/{response_id}"
        return [
            self._operation("GET", one, "A kept response.", self._retrieve, "Response"),
            self._operation("DELETE", one, "Delete a kept response.", self._delete, "Deleted"),
            self._operation("GET", f"{one}/input_items", "What a response answered.", self._items, "ItemList"),
            Operation(
                method="POST",
                path="/v1/responses/input_tokens",
                summary="How long a prompt is.",
                tag="model API",
                app=App(self._count, face_shape(RESPONSES), self.retry_after_s),
                body=json("ResponsesRequest"),
                answers={200: json("InputTokens")},
                errors=COUNTED,
                error=json("OpenAIError"),
                bound=True,
            ),
        ]

    def _operation(self, method: str, path: str, summary: str, answer: Answered, reply: str) -> Operation:
        async def served(request: Request) -> Response:
            binding = bind_request(self.keys, request)
            with self.limiter.slot():
                return json_answer(await answer(request, binding), headers=request_ids())

        return Operation(
            method=method,
            path=path,
            summary=summary,
            tag="model API",
            app=App(served, face_shape(RESPONSES), self.retry_after_s),
            answers={200: json(reply)},
            errors=LOOKED,
            error=json("OpenAIError"),
            bound=True,
        )

    async def _retrieve(self, request: Request, binding: Binding) -> JsonDict:
        if request.query_params.get("stream") == "true":
            raise Refusal(400, "invalid_request", "a kept response is not streamed", param="stream")
        return (await self.kept.find(binding, request.path_params["response_id"])).response

    async def _delete(self, request: Request, binding: Binding) -> JsonDict:
        response_id = request.path_params["response_id"]
        await self.kept.delete(binding, response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def _items(self, request: Request, binding: Binding) -> JsonDict:
        items = await self.kept.items_of(binding, request.path_params["response_id"])
        return page_of(items, request.query_params)

    async def _count(self, request: Request) -> Response:
        binding, ids = bind_request(self.keys, request), request_ids()
        async with self.bodies.admitted(request, self.limiter) as raw:
            asked = json_object(raw)
            chat = RESPONSES.request(await self.kept.resolved(binding, asked))
            binding.caller.must_use(asked.get("model"))
            prompt = {name: chat[name] for name in PROMPT_FIELDS if name in chat}
            try:
                count = await self.counter.count(asked.get("model"), prompt)
            except EngineError as failed:
                body = RESPONSES.engine_error(failed.status, failed.body, ids["request-id"])
                return Response(body, failed.status, ids, media_type="application/json")
        return json_answer({"object": "response.input_tokens", "input_tokens": count}, headers=ids)
