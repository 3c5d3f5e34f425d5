"""Grader `numeric`: is the answer's number right, in any notation?"""

from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field

from leyden.events import Json
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import BrokenReferenceError, Grader, as_text, at
from leyden.reward.graders.numerals import Number, boxed, exactly, in_base_unit, numbers_in

DEFAULT_TOLERANCE = Fraction(1, 10**6)
ROUNDING = Fraction(1, 10**12)
ONE = Fraction(1)


class Numeric(Grader):
    r"""1.0 if the number is the reference's, else 0.0: integers exactly, others within `tolerance`.

    In a text, the number in the last `\boxed{…}` counts, else the last number. A text without a number is wrong.
    """

    isolated: ClassVar[bool] = False
    grader: Literal["numeric"] = "numeric"
    answer: str = "metadata.answer"
    """Path of the reference: a number, or a text with one."""
    tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest difference, absolute or relative to the larger number, for integers too.

    Null: two integers must be equal; other numbers may differ by 1e-6 (of the larger, if that is below 1) or by 1e-12
    of the larger, and from 0 by 1e-12."""
    take: Literal["boxed_or_last", "last", "first", "boxed", "only"] = "boxed_or_last"
    """Which number of a text counts; `only`: the text must have exactly one."""
    percent: Literal["either", "fraction", "number"] = "either"
    """Meaning of 50%: 0.5, 50, or whichever matches the reference."""
    units: dict[str, float] = Field(default_factory=dict)
    """Unit → factor to the unit of the reference (`{km: 1000, m: 1}`). A number with any other unit is then wrong.
    Empty: units are ignored."""

    def __call__(self, view: RolloutView) -> float | None:
        if (reference := at(view, self.answer)) is None:
            return None
        if (expected := self._number(reference)) is None or not (wanted := self._values(expected)):
            raise BrokenReferenceError(f"the reference {str(reference)[:80]!r} is no number")
        found = self._number(at(view, self.given))
        return float(found is not None and any(self._close(v, w) for v in self._values(found) for w in wanted))

    def _number(self, value: Json) -> Number | None:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return Number(exactly(value)) if abs(value) < 1e308 else None
        text = as_text(value) or ""
        inside = boxed(text) if self.take.startswith("boxed") else None
        if self.take == "boxed" and inside is None:
            return None
        numbers = numbers_in(text if inside is None else inside)
        if not numbers or (self.take == "only" and len(numbers) > 1):
            return None
        return numbers[0 if self.take == "first" else -1]

    def _values(self, number: Number) -> list[Fraction]:
        """The possible values of the number."""
        if number.is_percent:
            both = {"fraction": [number.value / 100], "number": [number.value]}
            return both.get(self.percent, [number.value / 100, number.value])
        value = in_base_unit(number, self.units)
        return [] if value is None else [value]

    def _close(self, value: Fraction, wanted: Fraction) -> bool:
        if self.tolerance is None:
            if value.denominator == wanted.denominator == 1:
                return value == wanted
            if not value or not wanted:
                return abs(value - wanted) <= ROUNDING
            larger = max(abs(value), abs(wanted))
            return abs(value - wanted) <= max(DEFAULT_TOLERANCE * min(ONE, larger), ROUNDING * larger)
        tolerance = exactly(self.tolerance)
        return abs(value - wanted) <= tolerance * max(ONE, abs(value), abs(wanted))
