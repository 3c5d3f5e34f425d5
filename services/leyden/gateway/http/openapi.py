"""The gateway as an OpenAPI 3.1 document, made from the declarations of its routes.

Bodies of `/leyden/v1` come from the models that validate them. For the model APIs (OpenAI's and Anthropic's) it lists
what the gateway itself reads and writes; everything else passes through.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from leyden.gateway.http.bodies import NoBody
from leyden.gateway.http.operations import Asked, JsonDict, LeydenRoutes, Operation, json
from leyden.gateway.http.schemas import SCHEMAS

DESCRIPTION = (
    "What agents talk to: the model API, OTLP, tasks and rollouts. What is answered with a 2xx is in Kafka. "
    "Every route but health needs a key, and without one every path is a 401. With one, a path that is not here is a "
    "404 and another method a 405 with `Allow`, in the shape of errors of the API that the path belongs to."
)
SECURITY: JsonDict = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a per-rollout key, which opens its own rollout only.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
}  # fmt: skip
MEANINGS = {
    200: "Done.",
    201: "Made, and in the log.",
    400: "The request cannot be understood, or asks for what is not served.",
    401: "No valid key.",
    403: "The key is valid and does not open this.",
    404: "No such model, rollout or key.",
    405: "Another method is served here.",
    408: "The body did not come in time.",
    409: "The attempt is over.",
    413: "The body is larger than the limit.",
    415: "Another content type or encoding is needed.",
    429: "Too many requests, or too many at a time; nothing was done.",
    500: "The engine's own error, passed on.",
    502: "The engine broke off, or answered as another policy version.",
    503: "Kafka, Redis or the engines are away for now: the same request may be sent again.",
    504: "The engine took too long.",
}
RETRIED = (429, 503)
"""Statuses with `Retry-After`."""
PARAMETERS: dict[str, JsonDict] = {
    "rollout": {
        "type": "string",
        "minLength": 1,
        "pattern": "^[^/]+$",
        "description": "A rollout id; in front of the model API also an attempt's trace id.",
        "examples": ["1e7de00000000000000000000001", "1e7de000000000000000000000010000"],
    },
    "attempt": {"type": "integer", "minimum": 0, "maximum": 65535, "examples": [0]},
    "model": {"type": "string", "minLength": 1, "pattern": "^[^/]+$", "examples": ["policy", "policy@3"]},
    "key_id": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    "response_id": {"type": "string", "minLength": 1, "pattern": "^[^/]+$", "examples": ["resp_1"]},
}
HEALTH = json("Health")
HEALTH_OPERATIONS = [
    Operation(
        method="GET", path=path, summary=summary, tag="ops", answers={200: HEALTH}, errors=(503,), error=HEALTH,
        keyless=True,
    )
    for path, summary in (
        ("/healthz", "Whether the process is alive."),
        ("/readyz", "Whether it may be sent requests."),
    )
]  # fmt: skip
"""Routes that `leyden.service` serves on the same port."""


def document(operations: Sequence[Operation]) -> JsonDict:
    """The OpenAPI 3.1 document of the gateway, as JSON values."""
    whole = [*operations, *HEALTH_OPERATIONS]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Leyden gateway", "version": "v1", "description": DESCRIPTION},
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": _paths(whole),
        "components": {"securitySchemes": SECURITY, "schemas": SCHEMAS | _bodies(whole)},
    }


def _paths(operations: Sequence[Operation]) -> JsonDict:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for prefix in operation.prefixes:
            path = re.sub(r":\w+}", "}", prefix + operation.path)
            paths.setdefault(path, {})[operation.method.lower()] = _entry(operation, path)
    return paths


def _entry(operation: Operation, path: str) -> JsonDict:
    """The document's entry of an operation under `path`."""
    names = re.findall(r"\{(\w+)\}", path)
    codes = {*operation.errors, *([404, 403] if "{rollout}" in path else [])}
    entry: JsonDict = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}_{path}").strip("_"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            str(code): {"description": MEANINGS[code], "content": content, **_headers(code)}
            for code, content in (
                *operation.answers.items(),
                *((code, operation.error) for code in sorted(codes)),
            )
        },
    }
    if names:
        entry["parameters"] = [_parameter(name) for name in names]
    if operation.body is not None:
        content = operation.body if isinstance(operation.body, dict) else json(operation.body.__name__)
        entry["requestBody"] = {"required": operation.body_required, "content": content}
    return entry | ({"security": []} if operation.keyless else {})


def _bodies(operations: Sequence[Operation]) -> JsonDict:
    """The schemas of the request models and their parts, by name."""
    models = [one.body for one in operations if isinstance(one.body, type) and issubclass(one.body, BaseModel)]
    _, made = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template="#/components/schemas/{model}"
    )
    schemas: JsonDict = made["$defs"]
    return schemas


def _parameter(name: str) -> JsonDict:
    schema = dict(PARAMETERS[name])
    described = {"description": schema.pop("description")} if "description" in schema else {}
    return {"name": name, "in": "path", "required": True, "schema": schema, **described}


def _headers(code: int) -> JsonDict:
    if code not in RETRIED:
        return {}
    header = {"description": "Seconds until the same request may succeed.", "schema": {"type": "string"}}
    return {"headers": {"Retry-After": header}}


def document_operation(leyden: LeydenRoutes, others: Sequence[Operation]) -> Operation:
    """`GET /openapi.json`: the document of `others` and of itself; any key may read it."""

    @cache
    def written() -> bytes:
        return orjson.dumps(document([*others, own]))

    async def serve(_: Asked[NoBody]) -> Response:
        return Response(written(), media_type="application/json")

    own = replace(
        leyden.operation(
            "GET", "/openapi.json", serve, NoBody, tag="ops", reply={"type": "object"}, summary="This document."
        ),
        errors=(401, 503),
    )
    return own
