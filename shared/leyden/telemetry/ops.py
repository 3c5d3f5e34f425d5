"""`/healthz`, `/readyz` and `/metrics`: the routes of every service. They need no key."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], Awaitable[str | None]]
"""Returns None if healthy, else one sentence with the reason."""


def health_routes(alive: Check, ready: Check) -> list[Route]:
    """Routes for liveness (the process makes progress) and readiness (it can work now)."""

    async def healthz(_: Request) -> Response:
        return _answer(await alive())

    async def readyz(_: Request) -> Response:
        return _answer(await ready())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_route() -> Route:
    """Route for Prometheus metrics."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


def _answer(problem: str | None) -> Response:
    body = {"status": "ok"} if problem is None else {"status": "unavailable", "reason": problem}
    return JSONResponse(body, status_code=200 if problem is None else 503)
