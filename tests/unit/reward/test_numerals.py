"""Numbers are read in the usual notations; what is ambiguous follows the rules in docs/rewards.md."""

import math
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Json
from leyden.reward.graders.exact_match import canonical
from leyden.reward.graders.numerals import numbers_in
from unit.reward.test_graders import graded


def grouped(digits: str, separator: str) -> str:
    """Digits in groups of three."""
    return f"{int(digits):,}".replace(",", separator)


def indian(digits: str) -> str:
    head, tail = digits[:-3], digits[-3:]
    pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)][::-1]
    return ",".join([*pairs, tail])


def other_script(zero: str) -> Callable[[str, str], str]:
    """`whole.part` with the digits of a script and the Arabic marks."""
    digits = str.maketrans("0123456789", "".join(chr(ord(zero) + n) for n in range(10)))
    return lambda whole, part: f"{whole}٫{part}".translate(digits)


DECIMAL: dict[str, Callable[[str, str], str]] = {
    "point": lambda whole, part: f"{whole}.{part}",
    "english": lambda whole, part: f"{grouped(whole, ',')}.{part}",
    "german": lambda whole, part: f"{grouped(whole, '.')},{part}",
    "swiss": lambda whole, part: f"{grouped(whole, chr(39))}.{part}",
    "typographic": lambda whole, part: f"{grouped(whole, '’')}.{part}",
    "narrow space": lambda whole, part: f"{grouped(whole, chr(0x202F))}.{part}",
    "latex": lambda whole, part: f"{grouped(whole, '{,}')}.{part}",
    "indian": lambda whole, part: f"{indian(whole)}.{part}",
    "arabic": other_script("٠"),
    "persian": other_script("۰"),
    "devanagari": other_script("०"),
    "scientific": lambda whole, part: f"{whole}{part}e-{len(part)}",
    "times ten to": lambda whole, part: rf"{whole}{part} \times 10^{{-{len(part)}}}",
    "superscript": lambda whole, part: f"{whole}{part}·10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[len(part)]}",
}
WHOLE: dict[str, Callable[[str], str]] = {
    "plain": str,
    "english": lambda digits: grouped(digits, ","),
    "swiss": lambda digits: grouped(digits, "'"),
    "indian": indian,
    "fullwidth": lambda digits: digits.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
    "german": lambda digits: grouped(digits, ".") if len(digits) > 6 else digits,
}
AROUND = ["{}", "it is {}.", "so {} or", "= {}", "({})", "**{}**", "\n{}\n", "{}, then"]
wholes = st.from_regex(r"[1-9]\d{0,8}", fullmatch=True)
parts = st.from_regex(r"\d{1,6}", fullmatch=True)
signs = st.sampled_from(["", "-", "−", "+"])


def sign_of(text: str) -> int:
    return -1 if text in ("-", "−") else 1


@given(wholes, parts, st.sampled_from(list(DECIMAL)), signs, st.sampled_from(AROUND))
def test_decimals_are_read_in_every_usual_notation(whole: str, part: str, form: str, sign: str, around: str) -> None:
    text = around.format(sign + DECIMAL[form](whole, part))
    bracketed_pair = form == "german" and len(whole) <= 3 and around == "({})" and not sign
    wanted = sign_of(sign) * Fraction(f"{whole}.{part}")
    expected = [Fraction(whole), Fraction(part)] if bracketed_pair else [wanted]
    if form == "german" and len(whole) <= 3 and len(part) == 3:
        expected = [sign_of(sign) * Fraction(whole + part)]  # a comma with three digits behind it separates thousands
    assert [number.value for number in numbers_in(text)] == expected


@given(wholes, st.sampled_from(list(WHOLE)), signs, st.sampled_from(AROUND))
def test_integers_are_read_in_every_usual_notation(digits: str, form: str, sign: str, around: str) -> None:
    text = around.format(sign + WHOLE[form](digits))
    assert [number.value for number in numbers_in(text)] == [sign_of(sign) * int(digits)]


@given(st.integers(0, 99), st.integers(1, 30), st.integers(2, 30), signs)
def test_fractions_and_mixed_numbers(whole: int, top: int, bottom: int, sign: str) -> None:
    fraction = Fraction(top, bottom)
    assert [n.value for n in numbers_in(f"{sign}{top}/{bottom}")] == [sign_of(sign) * fraction]
    assert [n.value for n in numbers_in(rf"{sign}\frac{{{top}}}{{{bottom}}}")] == [sign_of(sign) * fraction]
    mixed = [sign_of(sign) * (whole + fraction)] if top < bottom else [sign_of(sign) * whole, fraction]
    assert [n.value for n in numbers_in(f"it is {sign}{whole} {top}/{bottom} in all")] == mixed
    assert [n.value for n in numbers_in(rf"{sign}{whole}\frac{{{top}}}{{{bottom}}}")] == mixed


@given(st.integers(1, 99), st.integers(-20, 20), st.sampled_from(["{}^{}", "{}**{}", "{}^{{{}}}", "{} ^ {}"]))
def test_powers(base: int, power: int, form: str) -> None:
    assert [n.value for n in numbers_in("so " + form.format(base, power))] == [Fraction(base) ** power]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,5", ["0.5"]), ("0,123", ["0.123"]), ("1234,567", ["1234.567"]), ("1,234", ["1234"]), ("1.234", ["1.234"]),
        ("3,4,5", ["3", "4", "5"]), ("(3,4)", ["3", "4"]), ("[3,4]", ["3", "4"]), ("1 234", ["1", "234"]),
        ("1½", ["1.5"]), ("¾", ["0.75"]), ("10^12", [10**12]), ("x^2 = 9", ["9"]), ("9^9999", []), ("-2^2", ["-4"]),
        ("12!", [math.factorial(12)]), ("It is 12!", ["12"]), ("171!", []), ("٣٫٥", ["3.5"]), ("1 4/2", ["1", "2"]),
    ],
)  # fmt: skip
def test_the_stated_rules_for_what_is_ambiguous(text: str, values: list[str | int]) -> None:
    assert [number.value for number in numbers_in(text)] == [Fraction(value) for value in values]


@pytest.mark.parametrize(
    "piece", ["1,111", "1.111", "1'111", "1,11", "1 ", "1/", "1^", "9", " ", "½", "²", "(1,", "\\frac{1"]
)
def test_long_texts_are_read_in_time(piece: str) -> None:
    started = time.process_time()
    numbers_in("1" + piece * 20_000)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    ("given_", "answer", "expected"),
    [
        ("0,5", 0.5, 1.0), ("1 1/2", 1.5, 1.0), ("1 1/2", 0.5, 0.0), ("10^12", 10**12, 1.0), ("10^12", 12, 0.0),
        (r"\boxed{12!}", 479001600, 1.0), (r"\boxed{12!}", 12, 0.0), ("٣٫٥", 3.5, 1.0), ("1e-9", 2e-9, 0.0),
        ("1e-9", 1e-9, 1.0), (1.0000000001e-9, 1e-9, 1.0), (5.5e-17, 0, 1.0), (1e-9, 0, 0.0), (1e-7, 2e-7, 0.0),
        ("1000001", 1000000, 0.0), (7.0000001, 7, 1.0), (0.1 + 0.2, 0.3, 1.0),
    ],
)  # fmt: skip
def test_numeric_grades_them(given_: Json, answer: Json, expected: float) -> None:
    assert graded("numeric", given_, {"answer": answer}) == expected


@given(st.floats(1e-300, 1e15), st.floats(1e-5, 1e5))
def test_another_number_is_wrong_however_small(value: float, factor: float) -> None:
    near = abs(factor - 1) <= 1e-6
    if value < 1 and max(value, value * factor) < 1:
        assert graded("numeric", value * factor, {"answer": value}) == float(near) or abs(abs(factor - 1) - 1e-6) < 1e-9


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("0,123", 123, False), ("0,123", "0,123", True), ("1,234", 1234, True), ({"a": "1.0"}, {"a": 1}, True),
        ({"a": {"b": " X "}}, {"a": {"b": "x"}}, True), ({"a": 1}, {"a": True}, False), ({"a": 1}, {"b": 1}, False),
        ([{"a": "2"}], [{"a": 2.0}], True), ({}, [], False),
    ],
)  # fmt: skip
def test_exact_match_compares_the_parts_of_structures(left: Json, right: Json, equal: bool) -> None:
    assert (canonical(left) == canonical(right)) is equal


leaves = st.none() | st.booleans() | st.integers(-9999, 9999) | st.sampled_from(["Yes", " no ", "", "x,y"])
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("abc"), v, max_size=3)
)


def rewritten(value: Any) -> Any:
    """The same answer in other words: numbers as texts, other case and space."""
    match value:
        case bool() | None:
            return value
        case int():
            return f" {value:,}.0 "
        case str():
            return f" {value.upper()} "
        case list():
            return [rewritten(one) for one in value]
        case _:
            return {key: rewritten(one) for key, one in reversed(value.items())}


@given(values)
def test_a_structure_equals_itself_in_other_words(value: Any) -> None:
    assert canonical(rewritten(value)) == canonical(value)
