"""When a request arrived: how long it waited before its handler, for the proxy's queue and for this process's own.

Only a metric is made of it: nobody is trusted, and nothing decided, by a header that a caller may set.
"""

import time

from starlette.requests import Request
from starlette.types import Scope

from leyden.gateway.http.bounded import BoundedProtocol
from leyden.gateway.metrics import QUEUE_SECONDS

HEADER = "x-request-start"
ARRIVED = "leyden_arrived"
LONGEST_S = 3600.0
"""A wait beyond this is a clock that is wrong, or a header that means something else."""
UNITS = ((1e14, 1e6), (1e11, 1e3))
"""(from this number on, so many to the second): nginx sends seconds, Heroku milliseconds, others microseconds."""


class StampedProtocol(BoundedProtocol):
    """uvicorn's, which notes when a request's first bytes were read: what then waits in the event loop counts."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ARRIVED] = time.perf_counter()


def note_wait(request: Request) -> None:
    """Observe how long the request waited until now."""
    waited = waited_s(request.scope, request.headers.get(HEADER), time.perf_counter(), time.time())
    if waited is not None:
        QUEUE_SECONDS.observe(waited)


def waited_s(scope: Scope, header: str | None, now: float, wall: float) -> float | None:
    """Seconds since the proxy in front took the request, as far as it says so, else since the socket was read.

    None where neither is known.
    """
    started = _moment(header)
    if started is not None and 0 <= wall - started <= LONGEST_S:
        return wall - started
    arrived = scope.get("state", {}).get(ARRIVED)
    return now - arrived if isinstance(arrived, float) else None


def _moment(header: str | None) -> float | None:
    """A moment as `t=<number>` or `<number>`, in seconds since 1970."""
    text = (header or "").strip().removeprefix("t=")
    if not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 32:
        return None
    number = float(text)
    return number / next((unit for least, unit in UNITS if number >= least), 1.0)
