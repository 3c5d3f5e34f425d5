"""Rollout ends that are sent in the background: bounded, in time, and never in the agent's way."""

import logging
import threading

import pytest

from leyden.client.attempts import EndQueue


def test_every_end_is_sent() -> None:
    sent: list[int] = []
    sut = EndQueue()
    jobs = [sut.submit(lambda n=n: sent.append(n)) for n in range(20)]  # type: ignore[misc]
    assert sut.drain(5) == 0
    assert sorted(sent) == list(range(20))
    assert all(job.done() for job in jobs)
    sut.close()


def test_draining_has_a_time_limit_and_says_what_is_left() -> None:
    gate = threading.Event()
    sut = EndQueue(threads=1)

    def wait() -> None:
        gate.wait(60)

    sut.submit(wait)
    sut.submit(lambda: None)
    assert sut.drain(0.01) == 2  # or it would be 0, a minute later
    gate.set()
    assert sut.drain(5) == 0


def test_what_does_not_fit_is_not_sent_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    gate, begun = threading.Event(), threading.Event()
    sut = EndQueue(capacity=2, threads=1)

    def wait() -> None:
        begun.set()
        gate.wait(60)

    sut.submit(wait)
    assert begun.wait(10)
    with caplog.at_level(logging.ERROR, "leyden.client"):
        jobs = [sut.submit(lambda: None) for _ in range(3)]
    assert [job.done() for job in jobs] == [False, False, True]
    assert "a rollout end was dropped" in caplog.text
    gate.set()
    assert sut.drain(5) == 0


def test_an_error_of_ours_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    sut = EndQueue(threads=1)
    sut.submit(lambda: [][1])
    assert sut.submit(lambda: None).result(5) is None
    assert "a bug in the client library" in caplog.text
