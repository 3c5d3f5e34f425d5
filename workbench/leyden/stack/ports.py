"""Free TCP ports on this machine. A port found free can be taken by another before it is used; tests live with that."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """As many different free ports of 127.0.0.1, all held open until the last is found so that none is given twice."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def free_port() -> int:
    """One free port of 127.0.0.1."""
    return free_ports(1)[0]
