"""Grader `exact_match`: compares numbers as numbers, text without surrounding space and case."""

import math
from typing import ClassVar, Literal

from leyden.events import Json
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import Grader, at


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
    """Canonical form: equal for equal answers. `true` and the number 1 are different."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [canonical(item) for item in value]
    text = value.strip().casefold() if isinstance(value, str) else value
    if not isinstance(text, str | int | float):
        return text
    try:
        number = float(text.replace(",", "")) if isinstance(text, str) else float(text)
    except (ValueError, OverflowError):
        return text
    return number if math.isfinite(number) else text
