"""The OpenAPI document: it says what is there, no more and no less, and to whoever has a key."""

from typing import Any

import httpx
from starlette.routing import Route

from leyden.gateway.http.openapi import document
from leyden.telemetry.ops import health_routes
from service.gateway.gateway_fakes import Bench, operations

HEALTH = ("/healthz", "/readyz")


async def well() -> None:
    return None


def served(gate: Bench) -> set[tuple[str, str]]:
    """Method and path of every route of the gateway's port, but for what only helps clients with another base URL."""
    routes = [*gate.gateway.routes(), *health_routes(well, well)]
    found = {
        (method.lower(), route.path_format)
        for route in routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods or ()
        if method != "HEAD" and "{rest" not in route.path
    }
    return {(method, path) for method, path in found if (method, f"/v1{path}") not in found}


async def test_every_route_is_told_and_every_told_route_is_there(gate: Bench) -> None:
    told = {(method, path) for path, methods in document(operations())["paths"].items() for method in methods}
    assert told == served(gate)


async def test_the_document_is_for_who_has_a_key(gate: Bench, http: httpx.AsyncClient) -> None:
    assert (await http.get("/openapi.json", headers={"authorization": ""})).status_code == 401
    answer = await http.get("/openapi.json")
    assert (answer.status_code, answer.json()) == (200, document(operations()))


def test_every_schema_that_is_named_is_there_and_every_one_there_is_named() -> None:
    whole = document(operations())
    assert references(whole) == {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}


def test_operations_have_ids_of_their_own_and_only_health_needs_no_key() -> None:
    told = {(path, m): o for path, methods in document(operations())["paths"].items() for m, o in methods.items()}
    assert len({operation["operationId"] for operation in told.values()}) == len(told)
    keyless = {path for (path, _), operation in told.items() if operation.get("security") == []}
    assert keyless == set(HEALTH)
    assert all("401" in o["responses"] for (path, _), o in told.items() if path not in HEALTH)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()
