"""A start that is interrupted: what is said, and what `leyden status` reads after it."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.client.local_stack import is_locked
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.stack import Stack
from leyden.stack.state import DataFolder

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(0), SystemExit(143)])
def test_an_interrupted_start_is_down_and_says_why(tmp_path: Path, interrupt: BaseException) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text("{}")
    told: list[str] = []

    def interrupting(line: str) -> None:
        told.append(line)
        if len(told) == 1:
            raise interrupt

    data = tmp_path / "stack"
    with pytest.raises(type(interrupt)):
        Stack(StackConfig(data_dir=data, run_file=run_file), interrupting).up()
    state = DataFolder(data).read_state()
    assert (state.phase, state.error, state.doing) == ("down", "its start was interrupted", "")
    assert told[1:] == ["stopping the stack; its services finish what they write"]


def test_a_failed_start_keeps_its_reason(tmp_path: Path) -> None:
    def failing(line: str) -> None:
        raise OSError(f"no space while {line.split()[0]}")

    run_file = tmp_path / "run.yaml"
    run_file.write_text("{}")
    data = tmp_path / "stack"
    with pytest.raises(OSError, match="no space"):
        Stack(StackConfig(data_dir=data, run_file=run_file), failing).up()
    state = DataFolder(data).read_state()
    assert (state.phase, state.error) == ("failed", "no space while checking")


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Sets the limit on the size of files back after the test."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("file_limit")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), StackError("the model is gone")])
def test_a_start_that_ends_when_nothing_can_be_written_stops_all(tmp_path: Path, error: BaseException) -> None:
    def ending(line: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        raise error

    run_file = tmp_path / "run.yaml"
    run_file.write_text("{}")
    stack = Stack(StackConfig(data_dir=tmp_path / "stack", run_file=run_file), ending)
    with pytest.raises(type(error)) as raised:
        stack.up()
    assert raised.value is error
    assert not is_locked(stack.folder.lock)
    assert list(stack.folder.root.glob("*.tmp")) == []
