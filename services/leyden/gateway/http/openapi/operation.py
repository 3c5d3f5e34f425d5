"""What one operation says of itself, and how that becomes its entry in the document."""

import re
from dataclasses import dataclass, field
from typing import Any

from leyden.gateway.http.bodies import Body

JsonDict = dict[str, Any]
JSON = "application/json"
BODIES: list[type[Body]] = []
"""Every request model that an operation names."""

MEANINGS = {
    200: "Done.",
    201: "Made, and in the log.",
    400: "The request cannot be understood, or asks for what is not served.",
    401: "No valid key.",
    403: "The key is valid and does not open this.",
    404: "No such model, rollout or key.",
    405: "Another method is served here.",
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
}


@dataclass(frozen=True)
class Operation:
    """One method on one path, or on the several paths that mean the same."""

    method: str
    path: str
    summary: str
    tag: str
    answers: dict[int, JsonDict]
    """Success status → its content by media type."""
    errors: tuple[int, ...] = ()
    error: JsonDict = field(default_factory=dict)
    """The content of every error."""
    body: JsonDict | None = None
    """The request's content by media type; None for a request without one."""
    bound: bool = False
    """Whether it is served under `/rollouts/{rollout}` too."""
    keyless: bool = False
    body_required: bool = True

    @property
    def paths(self) -> list[str]:
        """Where it is served."""
        return [self.path, f"/rollouts/{{rollout}}{self.path}"] if self.bound else [self.path]

    def told(self, path: str) -> JsonDict:
        """Its entry under `path`."""
        names = re.findall(r"\{(\w+)\}", path)
        codes = {*self.errors, *([404, 403] if "{rollout}" in path else [])}
        told: JsonDict = {
            "operationId": re.sub(r"\W+", "_", f"{self.method}_{path}").strip("_"),
            "summary": self.summary,
            "tags": [self.tag],
            "responses": {
                str(code): {"description": MEANINGS[code], "content": content, **_headers(code)}
                for code, content in (*self.answers.items(), *((code, self.error) for code in sorted(codes)))
            },
        }
        if names:
            told["parameters"] = [_parameter(name) for name in names]
        if self.body is not None:
            told["requestBody"] = {"required": self.body_required, "content": self.body}
        return told | ({"security": []} if self.keyless else {})


def ref(name: str) -> JsonDict:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def json(schema: str | JsonDict) -> JsonDict:
    """Content that is JSON in the form of a schema."""
    return {JSON: {"schema": ref(schema) if isinstance(schema, str) else schema}}


def body_of(model: type[Body]) -> JsonDict:
    """A request's content, in the form of the model that checks it."""
    BODIES.append(model)
    return json(model.__name__)


def _parameter(name: str) -> JsonDict:
    schema = dict(PARAMETERS[name])
    described = {"description": schema.pop("description")} if "description" in schema else {}
    return {"name": name, "in": "path", "required": True, "schema": schema, **described}


def _headers(code: int) -> JsonDict:
    if code not in RETRIED:
        return {}
    header = {"description": "Seconds until the same request may succeed.", "schema": {"type": "string"}}
    return {"headers": {"Retry-After": header}}
