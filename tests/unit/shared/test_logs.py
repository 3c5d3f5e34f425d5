"""Log lines: what is repeated is said once in a while, with how often it came."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from leyden.telemetry.logs import RepeatFilter


class Logged:
    """What passes a filter, at times that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = RepeatFilter(10.0, lambda: self.now)
        self.lines: list[str] = []

    def log(self, text: str, *args: object, level: int = logging.WARNING, error: bool = False) -> None:
        failure = (ValueError, ValueError("x"), None) if error else None
        record = logging.LogRecord("aiokafka.conn", level, "", 0, text, args, failure)
        if self.filter.filter(record):
            self.lines.append(record.getMessage())


def test_a_message_that_comes_again_at_once_is_counted() -> None:
    logged = Logged()
    for node in range(100):
        logged.log("cannot connect to node %s", node)
    logged.log("no coordinator")
    assert logged.lines == ["cannot connect to node 0", "no coordinator"]
    logged.now = 10.0
    logged.log("cannot connect to node %s", 7)
    logged.log("cannot connect to node %s", 8)
    assert logged.lines[2:] == ["cannot connect to node 7 (99 more like this since)"]


def test_an_error_with_a_traceback_and_another_level_always_pass() -> None:
    logged = Logged()
    for _ in range(3):
        logged.log("failed", error=True)
    logged.log("failed")
    logged.log("failed", level=logging.ERROR)
    assert logged.lines == ["failed"] * 5


@given(st.lists(st.tuples(st.sampled_from(["a %s", "b"]), st.floats(0, 30)), max_size=50))
def test_every_message_is_shown_or_counted(steps: list[tuple[str, float]]) -> None:
    logged = Logged()
    for text, wait_s in steps:
        logged.now += wait_s
        logged.log(text, *(["x"] if "%" in text else []))
    logged.now += 11
    for text in ("a %s", "b"):
        logged.log(text, *(["x"] if "%" in text else []))
    counted = sum(int(line.split("(")[1].split()[0]) for line in logged.lines if "(" in line)
    assert len(logged.lines) + counted == len(steps) + 2


def test_the_number_of_remembered_messages_is_bounded() -> None:
    logged = Logged()
    for number in range(5_000):
        logged.log(f"message {number}")
    assert len(logged.lines) == 5_000
