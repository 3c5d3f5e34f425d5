"""Keep so many connections busy with one request, and say how long each answer took. A process of its own, on uvloop.

Closed loop: a connection sends its next request when the answer to the last is whole, whatever that says. Prints one
line of JSON.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
STATUS = slice(9, 12)
"""Where an answer that begins with `HTTP/1.1 200` says it."""


@dataclass(frozen=True)
class Load:
    """What was seen."""

    requests: int
    seconds: float
    per_s: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    """Until the first bytes of the answer: of a stream, its first event's."""
    answers: dict[str, int]
    """How many of each status."""


class Connection(asyncio.Protocol):
    """One connection that asks again and again until the deadline."""

    def __init__(self, request: Callable[[], bytes], deadline: float, times: list[float], firsts: list[float]) -> None:
        self._request = request
        self._deadline = deadline
        self._times = times
        self._firsts = firsts
        self._seen = bytearray()
        self._sent = 0.0
        self._first = 0.0
        self.answers: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if not self._seen:
            self._first = time.perf_counter()
        self._seen += data
        if whole(self._seen):
            now = time.perf_counter()
            self._times.append(now - self._sent)
            self._firsts.append(self._first - self._sent)
            self.answers[self._seen[STATUS].decode()] += 1
            self._seen.clear()
            if now < self._deadline:
                self._ask()
            else:
                self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a connection"))

    def _ask(self) -> None:
        request = self._request()
        self._sent = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]


def whole(seen: bytearray) -> bool:
    """Whether an answer is at its end: of a known length, or chunked."""
    end = seen.find(HEAD_END)
    if end < 0:
        return False
    at = seen.find(b"ontent-", 0, end)
    while at >= 0:
        if seen[at : at + 15].lower() == b"ontent-length: ":
            length = int(seen[at + 15 : seen.find(b"\r", at)])
            return len(seen) >= end + len(HEAD_END) + length
        at = seen.find(b"ontent-", at + 1, end)
    return seen.endswith(LAST_CHUNK)


def requests(url: str, body: bytes, chosen: argparse.Namespace) -> Callable[[], bytes]:
    """What gives the next request for `url`."""
    where = urlsplit(url)
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {chosen.key}\r\n"
    head += f"Content-Type: {chosen.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    whole_request = head.encode() + body
    if not chosen.stamp:
        return lambda: whole_request
    stamp = chosen.stamp.encode()
    # By the clock, so that the next run goes on where this one cannot have been.
    numbers = itertools.count(time.time_ns() // 1000)
    return lambda: whole_request.replace(stamp, next(numbers).to_bytes(8, "big")[-len(stamp) :])


async def keep_busy(urls: list[str], body: bytes, chosen: argparse.Namespace) -> Load:
    """Ask over connections that take the URLs in turn."""
    asks = [requests(url, body, chosen) for url in urls]
    times: list[float] = []
    firsts: list[float] = []
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    opened: list[tuple[asyncio.BaseTransport, Connection]] = []
    for number in range(chosen.connections):
        where = urlsplit(urls[number % len(urls)])
        new = partial(Connection, asks[number % len(urls)], began + chosen.seconds, times, firsts)
        opened.append(await loop.create_connection(new, where.hostname or "", where.port or 80))
    await asyncio.gather(*(protocol.done for _, protocol in opened))
    took = time.perf_counter() - began
    for transport, _ in opened:
        transport.close()
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    return Load(
        requests=len(times),
        seconds=took,
        per_s=len(times) / took,
        p50_ms=1000 * cuts[49],
        p99_ms=1000 * cuts[98],
        first_p50_ms=1000 * statistics.median(firsts),
        answers=dict(sum((protocol.answers for _, protocol in opened), Counter[str]())),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_load", description=__doc__)
    parser.add_argument("body", type=Path, help="a file that holds the request's body")
    parser.add_argument("urls", nargs="+", help="taken in turn by the connections")
    parser.add_argument("--stamp", help="at most 8 characters that each request has other bytes for, wherever they are")
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--key", default="key")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    load = uvloop.run(keep_busy(chosen.urls, chosen.body.read_bytes(), chosen))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
