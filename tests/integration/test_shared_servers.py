"""The servers that a run of the suite shares between its workers."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared_servers import ADDRESS, STARTS, SharedServers, address_of


class Started:
    """What was started and stopped, with no process behind it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.stopped: list[str] = []

    def start(self, folder: Path, stack: ExitStack) -> str:
        assert folder.is_dir()
        self.names.append("one")
        stack.callback(self.stopped.append, "one")
        return f"address {len(self.names)}"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """In place of the run's own servers, whose address comes back at the end."""
    found = Started()
    monkeypatch.setenv(ADDRESS, os.environ[ADDRESS])
    monkeypatch.setitem(STARTS, "one", found.start)
    monkeypatch.setitem(STARTS, "broken", lambda folder, stack: 1 / 0)  # type: ignore[arg-type,return-value]
    return found


def test_a_server_that_many_ask_for_is_started_once_and_stopped_with_the_run(started: Started) -> None:
    servers = SharedServers()
    folder = Path(os.environ[ADDRESS]).parent
    with ThreadPoolExecutor(8) as workers:
        assert set(workers.map(address_of, ["one"] * 8)) == {"address 1"}
    assert (started.names, started.stopped) == (["one"], [])
    servers.close()
    assert started.stopped == ["one"]
    assert not folder.exists()


def test_a_server_that_nobody_asks_for_is_not_started(started: Started) -> None:
    SharedServers().close()
    assert started.names == []


def test_why_a_server_did_not_start_is_told_to_the_test_that_asked(started: Started) -> None:
    servers = SharedServers()
    with pytest.raises(RuntimeError, match="the tests' broken could not be started: ZeroDivisionError"):
        address_of("broken")
    servers.close()
