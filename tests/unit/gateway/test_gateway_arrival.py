"""How long a request waited before its handler, from what is known of its arrival."""

import pytest

from leyden.gateway.http.requests import ARRIVED, waited_s

WALL = 1_800_000_000.0


@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("t=1799999999.5", 0.5), ("1799999999.5", 0.5), ("1799999999500", 0.5), ("t=1799999999500000", 0.5),
        (None, 0.25), ("", 0.25), ("yesterday", 0.25), ("t=1800000005", 0.25), ("t=1000", 0.25), ("9" * 400, 0.25),
    ],
)  # fmt: skip
def test_the_proxys_word_counts_where_it_can_be_true(header: str | None, waited: float) -> None:
    scope = {"state": {ARRIVED: 10.0}}
    assert waited_s(scope, header, 10.25, WALL) == pytest.approx(waited)


def test_where_nothing_is_known_nothing_is_observed() -> None:
    assert waited_s({}, None, 1.0, WALL) is None
