"""The document put together: paths, the schemas they name, and how to show a key."""

from typing import Any

from pydantic.json_schema import models_json_schema

from leyden.gateway.http.openapi import leyden, model_api, ops, otlp
from leyden.gateway.http.openapi.operation import BODIES, JsonDict, Operation
from leyden.gateway.http.openapi.shapes import SHAPES

DESCRIPTION = (
    "The only door for agents: the model API, OTLP, tasks and rollouts. What is answered with a 2xx is in Kafka. "
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


def document() -> JsonDict:
    """The whole gateway as an OpenAPI 3.1 document, ready to be JSON."""
    operations = [*model_api.OPERATIONS, *otlp.OPERATIONS, *leyden.OPERATIONS, *ops.OPERATIONS]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Leyden gateway", "version": "v1", "description": DESCRIPTION},
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": _paths(operations),
        "components": {"securitySchemes": SECURITY, "schemas": SHAPES | _bodies()},
    }


def _paths(operations: list[Operation]) -> JsonDict:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method] = operation.told(path)
    return paths


def _bodies() -> JsonDict:
    """The request models and what they are made of, by name."""
    _, made = models_json_schema([(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}")
    schemas: JsonDict = made["$defs"]
    return schemas
