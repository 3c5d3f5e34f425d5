"""Grader `exact_match`: compares numbers as numbers, text without surrounding space and case."""

import re
from decimal import Decimal, InvalidOperation
from typing import ClassVar, Literal

from leyden.events import Json
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import Grader, at

_NUMBER = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", re.ASCII)
"""A number as people write it, with thousands separators in their places or none."""


class ExactMatch(Grader):
    """1.0 if the answer equals the reference, else 0.0."""

    isolated: ClassVar[bool] = False
    grader: Literal["exact_match"] = "exact_match"
    answer: str = "metadata.answer"
    """Path of the reference."""

    def __call__(self, view: RolloutView) -> float | None:
        if (expected := at(view, self.answer)) is None:
            return None
        return float(canonical(at(view, self.given)) == canonical(expected))


def canonical(value: Json) -> object:
    """Canonical form: equal for equal answers. Numbers are compared exactly; `true` and the number 1 are different."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    text = value.strip().casefold() if isinstance(value, str) else value
    if isinstance(text, str):
        return _number(text)
    return Decimal(repr(text)) if isinstance(text, int | float) else text


def _number(text: str) -> object:
    """The number that `text` is, exactly; else `text`."""
    if not _NUMBER.fullmatch(text):
        return text
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
