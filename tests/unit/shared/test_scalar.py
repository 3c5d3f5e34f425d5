"""What is a number, whatever its class."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.scalar import as_number


class Odd:
    """A number of nobody's class."""

    def __float__(self) -> float:
        return 0.25


class Refusing:
    def __index__(self) -> int:
        raise TypeError

    def __float__(self) -> float:
        raise RuntimeError("a tensor of two elements")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int8(-3), -3),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (Odd(), 0.25),
    ],
)
def test_a_number_of_any_class_is_a_number(value: Any, number: float) -> None:
    found = as_number(value)
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize(
    "value",
    ["0.5", b"1", None, [0.5], {"a": 1}, 1j, np.complex64(1), np.array([0.5]), np.array(["a"]), float, Refusing(),
     Decimal("sNaN"), object()],
)  # fmt: skip
def test_anything_else_is_none(value: Any) -> None:
    assert as_number(value) is None


@given(st.floats(width=32), st.sampled_from([np.float32, np.float64, np.longdouble, float]))
def test_a_float_keeps_its_value(value: float, kind: Any) -> None:
    found = as_number(kind(value))
    assert found == value or (math.isnan(value) and isinstance(found, float) and math.isnan(found))
