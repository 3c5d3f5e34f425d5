"""Readiness probes: one small request over the server's own protocol, with a timeout of one second."""

import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Protocol

_TIMEOUT_S = 1.0
_API_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000001 ffff")


class Probe(Protocol):
    """Whether a server is ready; never raises, and blocks for a second at most."""

    def __call__(self) -> bool: ...


@dataclass(frozen=True)
class HttpProbe:
    """Ready if a GET of the URL returns a status below 400."""

    url: str

    def __call__(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - our own http URL
                return bool(answer.status < 400)
        except (OSError, urllib.error.URLError, ValueError):
            return False


@dataclass(frozen=True)
class TcpProbe:
    """Ready if the port answers `question` with at least `least` bytes that begin with `prefix`."""

    port: int
    host: str = "127.0.0.1"
    question: bytes = b""
    least: int = 0
    prefix: bytes = b""

    def __call__(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S) as connection:
                connection.sendall(self.question)
                answer = connection.recv(self.least) if self.least else b""
        except OSError:
            return False
        return len(answer) >= self.least and answer.startswith(self.prefix)


def kafka_probe(port: int, host: str = "127.0.0.1") -> TcpProbe:
    """Ready if the broker answers an ApiVersions request; the port is open earlier."""
    return TcpProbe(port, host, question=_API_VERSIONS, least=8)


def redis_probe(port: int, host: str = "127.0.0.1") -> TcpProbe:
    """Ready if PING returns PONG; a server that still loads its append-only file returns an error."""
    return TcpProbe(port, host, question=b"PING\r\n", least=5, prefix=b"+PONG")
