"""Free TCP ports on this machine, held until the servers that they are for have bound them.

A port is held by a socket that is bound to it with SO_REUSEADDR and never listens. Linux then does not hand it out as
a free port (bind to port 0, outgoing connections) and refuses a bind without SO_REUSEADDR. A server that sets
SO_REUSEADDR, as all of ours do, can bind it and listen. Until then connections to it are refused.
"""

import os
import socket
from collections import deque

HELD_PORTS = 256
"""Number of ports held at a time; the servers of older ones are listening by then."""

_held: deque[int] = deque()


def free_ports(count: int) -> list[int]:
    """`count` different free ports of 127.0.0.1, held for the servers that this process starts."""
    return [_hold(0) for _ in range(count)]


def free_port() -> int:
    """One free port of 127.0.0.1, held as by `free_ports`."""
    return _hold(0)


def hold_port(port: int) -> None:
    """Hold a given port. Raises OSError if a server listens on it."""
    _hold(port)


def _hold(port: int) -> int:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        held = int(holder.getsockname()[1])
        _held.append(holder.detach())
    while len(_held) > HELD_PORTS:
        os.close(_held.popleft())
    return held
