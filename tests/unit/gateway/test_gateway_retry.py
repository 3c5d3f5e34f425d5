"""How often, and after how long, a call is tried again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.resilience import Retries, RetryRules
from leyden.retry_after import retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULES = RetryRules(tries=4, base_s=1.0, cap_s=3.0, retry_after_cap_s=10.0)


def test_waits_are_random_up_to_a_cap_that_doubles_and_the_tries_are_counted() -> None:
    retries, waits = Retries(RULES, deadline=100), []
    retries.begin()
    while (wait := retries.wait_s(0, 0.5)) is not None:
        waits.append(wait)
        retries.begin()
    assert waits == [0.5, 1.0, 1.5]


def test_no_wait_goes_past_the_deadline() -> None:
    retries = Retries(RULES, deadline=100)
    retries.begin()
    assert retries.wait_s(99.4, 0.5) == 0.5
    assert retries.wait_s(99.5, 0.5) is None
    assert not retries.may_go_on(100)


def test_a_retry_after_is_waited_for_in_full_or_not_at_all() -> None:
    retries = Retries(RULES, deadline=100)
    retries.begin()
    assert retries.wait_s(0, 0.5, wanted_s=10.0) == 10.5
    assert retries.wait_s(0, 0.5, wanted_s=10.1) is None


@given(
    st.integers(1, 6), st.floats(0.01, 5), st.floats(0.01, 60), st.floats(0.1, 120),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 40), st.floats(0, 10)), max_size=20),
)  # fmt: skip
def test_a_call_is_over_by_its_deadline_and_never_waits_less_than_it_was_told(
    tries: int, base_s: float, cap_s: float, deadline: float, steps: list[tuple[float, float, float]]
) -> None:
    rules = RetryRules(tries, base_s, cap_s, 20.0)
    retries, now, asked = Retries(rules, deadline), 0.0, 0
    for chance, wanted, takes in steps:
        retries.begin()
        asked, now = asked + 1, now + takes
        wait = retries.wait_s(now, chance, wanted)
        if wait is None:
            break
        assert wanted <= wait <= wanted + cap_s
        assert now + wait < deadline
        now += wait
    assert asked <= tries


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0), (" 0.5 ", 0.5), (format_datetime(NOW + timedelta(seconds=90)), 90.0),
        (format_datetime(NOW - timedelta(seconds=90)), 0.0), ("Fri, 02 Jan 2026 03:04:15 -0000", 10.0),
        (None, 0.0), ("", 0.0), ("soon", 0.0), ("-3", 0.0), ("٣", 0.0), ("1e9", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_a_number_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_is_too_odd_to_be_read(header: str) -> None:
    assert retry_after_s(header, NOW) >= 0
