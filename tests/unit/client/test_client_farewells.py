"""Ends that are told behind the agent's back: bounded, in time, and never in its way."""

import logging
import threading
import time

import pytest

from leyden.client.farewells import Farewells


def test_every_end_is_told() -> None:
    told: list[int] = []
    sut = Farewells()
    jobs = [sut.submit(lambda n=n: told.append(n)) for n in range(20)]  # type: ignore[misc]
    assert sut.drain(5) == 0
    assert sorted(told) == list(range(20))
    assert all(job.done() for job in jobs)
    sut.close()


def test_draining_has_a_time_limit_and_says_what_is_left() -> None:
    gate = threading.Event()
    sut = Farewells(threads=1)
    sut.submit(lambda: bool(gate.wait(10)) or None)
    sut.submit(lambda: None)
    began = time.monotonic()
    assert sut.drain(0.1) == 2
    assert time.monotonic() - began < 2
    gate.set()
    assert sut.drain(5) == 0


def test_what_does_not_fit_is_left_untold_and_said(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    sut = Farewells(capacity=2, threads=1)
    sut.submit(lambda: bool(gate.wait(10)) or None)
    while sut._jobs:
        time.sleep(0.001)
    with caplog.at_level(logging.ERROR, "leyden.client"):
        jobs = [sut.submit(lambda: None) for _ in range(3)]
    assert [job.done() for job in jobs] == [False, False, True]
    assert "not told" in caplog.text
    gate.set()
    assert sut.drain(5) == 0


def test_an_error_of_ours_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    sut = Farewells(threads=1)
    sut.submit(lambda: [][1])
    assert sut.submit(lambda: None).result(5) is None
    assert "lost to an error" in caplog.text
