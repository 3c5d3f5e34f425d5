"""The delays between tries, and what is tried again."""

from itertools import islice

import pytest

from leyden.backoff import Backoff, retrying


class Awaited:
    """Fails `failures` times, then gives its number of calls; also a clock that does not wait."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self.failures, self.error, self.calls = failures, error, 0
        self.slept: list[float] = []
        self.told: list[tuple[str, float]] = []

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return self.calls

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def tell(self, error: Exception, delay_s: float) -> None:
        self.told.append((str(error), delay_s))


def test_delays_double_up_to_the_limit() -> None:
    assert list(islice(Backoff(0.5, 3.0).delays(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_changes_the_wait_and_not_the_doubling() -> None:
    assert list(islice(Backoff(1.0, 4.0, jitter=lambda s: s / 2).delays(), 4)) == [0.5, 1.0, 2.0, 2.0]


async def test_what_fails_is_tried_again_until_it_succeeds() -> None:
    act = Awaited(failures=3)
    assert await retrying(act, Backoff(1.0, 3.0), OSError, failed=act.tell, sleep=act.sleep) == 4
    assert act.slept == [1.0, 2.0, 3.0]
    assert act.told == [("failure 1", 1.0), ("failure 2", 2.0), ("failure 3", 3.0)]


async def test_the_last_failure_is_raised_without_another_wait() -> None:
    act = Awaited(failures=9)
    with pytest.raises(OSError, match="failure 3"):
        await retrying(act, Backoff(1.0, 3.0), OSError, tries=3, sleep=act.sleep)
    assert (act.calls, act.slept) == (3, [1.0, 2.0])


async def test_an_error_of_another_kind_goes_through_at_once() -> None:
    act = Awaited(failures=1, error=KeyError)
    with pytest.raises(KeyError):
        await retrying(act, Backoff(1.0, 1.0), OSError, sleep=act.sleep)
    assert (act.calls, act.slept) == (1, [])
