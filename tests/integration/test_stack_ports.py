"""A port that was found free is given to nobody else until the server that it is meant for listens on it."""

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from leyden.stack.config import Ports, StackConfig
from leyden.stack.ports import HELD_PORTS, free_port, free_ports, hold_port

TRIES = 3000
"""The kernel draws ports at random from some 14,000: of 100 that nobody held, 6000 draws would hit forty."""


def steal(port: int = 0) -> int:
    """Listen on a port as a program does that wants just any, or just this one."""
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port))
        thief.listen()
        return int(thief.getsockname()[1])


def test_whoever_asks_for_a_port_the_moment_it_was_found_is_refused() -> None:
    for _ in range(100):
        port = free_port()
        with pytest.raises(OSError, match="in use") as refused:
            steal(port)
        assert refused.value.errno == errno.EADDRINUSE


def test_whoever_asks_for_any_port_gets_others() -> None:
    held = set(free_ports(100))
    assert len(held) == 100
    for _ in range(TRIES):
        assert steal() not in held
        with socket.socket() as reusing:
            reusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reusing.bind(("127.0.0.1", 0))
            assert reusing.getsockname()[1] not in held


async def test_the_server_that_it_is_meant_for_gets_it_and_gets_it_again() -> None:
    port = free_port()
    for _ in range(2):
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


def test_a_port_on_which_a_server_listens_cannot_be_held() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="in use"):
        hold_port(server.getsockname()[1])


def test_the_oldest_ports_are_let_go() -> None:
    port = free_port()
    free_ports(HELD_PORTS)
    assert steal(port) == port


def test_auto_ports_are_all_different() -> None:
    ports = Ports.auto().resolved()
    numbers = [*(v for v in ports.model_dump().values() if isinstance(v, int)), *ports.ops]
    assert len(set(numbers)) == len(numbers) and all(numbers)


def test_chosen_ports_stay() -> None:
    assert Ports().resolved() == Ports()
    assert len(set(free_ports(50))) == 50


def test_a_config_survives_json(tmp_path: Path) -> None:
    config = StackConfig(data_dir=tmp_path, ports=Ports.auto(), process_env={"x": {"y": "z"}}).absolute()
    assert StackConfig.model_validate_json(config.model_dump_json()) == config
    assert config.ports.kafka != 0
