"""Free TCP ports on this machine, each held so that nobody else gets it before the server that it is meant for.

A port is held by a socket that is bound to it with SO_REUSEADDR and never listens. On Linux the kernel then gives the
port to nobody who asks for any port (bind to port 0, outgoing connections), and refuses it to whoever asks for it
without SO_REUSEADDR; a server that sets SO_REUSEADDR, as they all do, binds it and listens. A connection to a held port
on which nothing listens is refused, as to any other.
"""

import os
import socket
from collections import deque

HELD_PORTS = 256
"""The newest ones stay held while this process lives; the servers of older ones have long been listening."""

_held: deque[int] = deque()


def free_ports(count: int) -> list[int]:
    """As many different free ports of 127.0.0.1, held for this process and the servers that it starts."""
    return [_hold(0) for _ in range(count)]


def free_port() -> int:
    """One free port of 127.0.0.1, held as by `free_ports`."""
    return _hold(0)


def hold_port(port: int) -> None:
    """Hold a port that was chosen elsewhere; raises OSError when a server listens on it."""
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
