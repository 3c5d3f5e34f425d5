"""Health and the document itself."""

from leyden.gateway.http.openapi.operation import Operation, json

HEALTH = json("Health")
OPERATIONS = [
    Operation("get", "/healthz", "Whether the process is alive.", "ops", {200: HEALTH}, (503,), HEALTH, keyless=True),
    Operation("get", "/readyz", "Whether it may be sent requests.", "ops", {200: HEALTH}, (503,), HEALTH, keyless=True),
    Operation(
        "get", "/openapi.json", "This document.", "ops", {200: json({"type": "object"})}, (401, 503),
        json("LeydenError"),
    ),
]  # fmt: skip
