"""Finds numbers in text: separators, percent, units, fractions, powers, LaTeX, any script. Takes linear time."""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = "0123456789"
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_CHARACTERS = {ord(sign): plain for sign, plain in zip("−－＋．，％＄٫٬⁄∕’", "--+.,%$.,//'", strict=True)}
_LATEX = (
    (re.compile(r"(?<=\d)\s*\\[dt]?frac\s*\{\s*([^{}]{1,40})\}\s*\{\s*([^{}]{1,40})\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*\{\s*([^{}]{1,40})\}\s*\{\s*([^{}]{1,40})\}"), r"\1/\2"),
    (re.compile(r"\{,\}|\\[,;:! ]|(?<=\d)[\u00a0\u202f](?=\d)"), ""),
    (re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[×·⋅*x])\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d{1,4})\s*\}?"), r"e\1"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\\(?:text|mathrm)\s*\{([^{}]{0,40})\}"), r" \1"),
)
_GROUPS = r"[1-9]\d{0,2}(?:,\d{3}){1,99}|[1-9]\d?(?:,\d{2}){1,99},\d{3}"
"""Thousands separators in their places; the second form is India's. Bounded, so that the time stays linear."""
_MARKED = (
    rf"(?:{_GROUPS})(?:\.\d+)?",
    r"[1-9]\d{0,2}(?:'\d{3}){1,99}(?:[.,]\d+)?",
    r"[1-9]\d{0,2}(?:\.\d{3}){1,99},\d+|[1-9]\d{0,2}(?:\.\d{3}){2,99}",
    r"(?<!\d,)(?:(?<![(\[{])\d+,\d+|(?<=[(\[{])\d+,\d+(?![)\]}\d]))",
)
_END = r"(?![,.']?\d)"
_ONE = rf"(?:(?:{'|'.join(_MARKED)}){_END}|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{{1,4}})?"
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)])[-+])?(?P<money>[$€£])?(?<![\w.^])(?:(?P<whole>\d{1,9}) (?=\d{1,9}\s?/\s?\d))?"
    rf"(?P<top>{_ONE})(?:\s?(?:\^|\*\*)\s?\{{?(?P<power>[+-]?\d{{1,4}})\}}?|\s?/\s?(?P<bottom>{_ONE}))?"
    r"(?:\s{0,2}(?P<unit>%|[^\W\d_][\w/^]{0,15}|°\w?))?"
)
_FACTORIAL = re.compile(r"\s*(\d{1,3})!\s*")
_BRACE = re.compile(r"\\boxed\s?\{|\{|\}")
MAX_CHARS = 20_000
"""Only this many characters, from the end of a text, are searched."""
MAX_EXPONENT = 400
LARGEST_FACTORIAL = 170
"""That of 171 fits no float."""


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
    """All numbers in `text`, in order; those that do not fit a float are omitted.

    docs/rewards.md states which notations are read, and how ambiguous ones are.
    """
    text = _plain(text[-MAX_CHARS:])
    if (alone := _FACTORIAL.fullmatch(text)) is not None:
        return [Number(Fraction(math.factorial(int(alone[1]))))] if int(alone[1]) <= LARGEST_FACTORIAL else []
    return [number for match in _NUMBER.finditer(text) for number in _numbers(match)]


def _plain(text: str) -> str:
    """`text` in ASCII digits, signs and marks, with fractions and powers as `1/2` and `10^3`."""
    text = text.translate(_CHARACTERS)
    if not text.isascii():
        text = "".join(map(_ascii, text))
        text = re.sub(rf"(?<=[\d)])[⁺⁻]?[{_SUPERSCRIPTS}]+", _power, text)
        text = re.sub(r"(\d?)\s?([¼-¾⅐-⅞])", _vulgar_fraction, text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def _ascii(character: str) -> str:
    """The ASCII digit of a decimal digit of any script; any other character unchanged."""
    digit = None if character in _SUPERSCRIPTS else unicodedata.decimal(character, None)
    return character if digit is None else _DIGITS[int(digit)]


def _power(match: re.Match[str]) -> str:
    return "^" + match[0].translate(str.maketrans("⁺⁻" + _SUPERSCRIPTS, "+-" + _DIGITS))


def _vulgar_fraction(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match[2]).replace("⁄", "/")
    return f"{match[1]} {fraction}" if match[1] else fraction


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
    mantissa, _, exponent = text.replace("'", "").lower().partition("e")
    if abs(int(exponent or "0")) > MAX_EXPONENT:
        raise OverflowError
    comma, point = mantissa.rfind(","), mantissa.rfind(".")
    if comma > point >= 0 or (comma >= 0 and point < 0 and not re.fullmatch(_GROUPS, mantissa)):
        mantissa = mantissa.replace(".", "").replace(",", ".")
    elif mantissa.count(".") > 1:
        mantissa = mantissa.replace(".", "")
    return Fraction(f"{mantissa.replace(',', '')}e{exponent or 0}")


def _raised(base: Fraction, power: int) -> Fraction:
    """`base` to the `power`. Raises OverflowError for a result that no float has, before computing it."""
    size = max(abs(math.log10(base.numerator)) if base else 0.0, math.log10(base.denominator))
    if abs(power) * size > MAX_EXPONENT:
        raise OverflowError
    return base**power


def _numbers(match: re.Match[str]) -> list[Number]:
    """The number of the match; two if what looks like a mixed number (`1 1/2`) is none (`1 4/2`)."""
    unit = match["unit"] or match["money"] or ""
    sign = -1 if match["sign"] == "-" else 1
    try:
        value, whole = _exact(match["top"]), Fraction(match["whole"] or 0)
        if match["bottom"]:
            value /= _exact(match["bottom"])
        elif match["power"]:
            value = _raised(value, int(match["power"]))
        float(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        return []
    if not match["whole"]:
        return [Number(sign * value, unit)]
    return [Number(sign * (whole + value), unit)] if value < 1 else [Number(sign * whole), Number(value, unit)]
