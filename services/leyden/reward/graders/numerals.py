"""Finds numbers in text: thousands separators, percent, units, fractions, LaTeX. Takes linear time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{\s*([^{}]{1,40})\}\s*\{\s*([^{}]{1,40})\}"), r"\1/\2"),
    (re.compile(r"\s*(?:\\times|\\cdot|×)\s*10\s*\^\s*\{?\s*([+-]?\d{1,4})\s*\}?"), r"e\1"),
    (re.compile(r"\{,\}|\\[,;:! ]|(?<=\d)[\u00a0\u202f](?=\d)"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\\(?:text|mathrm)\s*\{([^{}]{0,40})\}"), r" \1"),
)
_ONE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,4})?|\.\d+(?:[eE][+-]?\d{1,4})?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)])[-+])?(?P<money>[$€£])?(?<![\w.])(?P<top>{_ONE})"
    rf"(?:\s?/\s?(?P<bottom>{_ONE}))?(?:\s{{0,2}}(?P<unit>%|[^\W\d_][\w/^]{{0,15}}|°\w?))?"
)
_BRACE = re.compile(r"\\boxed\s?\{|\{|\}")
MAX_CHARS = 20_000
"""Only this many characters, from the end of a text, are searched."""
MAX_EXPONENT = 400


@dataclass(frozen=True)
class Number:
    """A number found in a text, and the unit after it."""

    value: Fraction
    unit: str = ""

    @property
    def is_percent(self) -> bool:
        """Whether it was followed by a percent sign or the word."""
        return self.unit in ("%", "percent")


def numbers_in(text: str) -> list[Number]:
    """All numbers in `text`, in order; those that do not fit a float are omitted."""
    text = text[-MAX_CHARS:].replace("−", "-")
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return [number for match in _NUMBER.finditer(text) if (number := _number(match)) is not None]


def boxed(text: str) -> str | None:
    r"""The content of the last closed `\boxed{…}`; None if there is none."""
    found: str | None = None
    open_at: list[int | None] = []
    """For each open brace: the start of its content if it belongs to a box."""
    for brace in _BRACE.finditer(text[-MAX_CHARS:]):
        if brace[0] != "}":
            open_at.append(brace.end() if len(brace[0]) > 1 else None)
        elif open_at and (begin := open_at.pop()) is not None:
            found = brace.string[begin : brace.start()]
    return found


def exactly(value: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(repr(value))


def in_base_unit(number: Number, units: Mapping[str, float]) -> Fraction | None:
    """The value times the factor of its unit; None if its unit is not in `units`."""
    if not units or not number.unit:
        return number.value
    factor = units.get(number.unit)
    return None if factor is None else number.value * exactly(factor)


def _exact(text: str) -> Fraction:
    """The number as it is written. Raises OverflowError for an exponent that no float has, before computing with it."""
    plain = text.replace(",", "").lower()
    if abs(int(plain.partition("e")[2] or "0")) > MAX_EXPONENT:
        raise OverflowError
    return Fraction(plain)


def _number(match: re.Match[str]) -> Number | None:
    try:
        value = _exact(match["top"]) / _exact(match["bottom"] or "1")
        float(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return Number(-value if match["sign"] == "-" else value, match["unit"] or match["money"] or "")
