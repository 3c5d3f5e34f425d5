"""Runs the reward functions before the rules, and gives each attempt a rulebook that contains their results."""

from collections.abc import Sequence
from dataclasses import replace

from leyden.reward.core.assess import Rulebook
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.rules import FunctionRule, answered
from leyden.reward.core.view import view_of
from leyden.reward.ports import Functions


async def answered_rulebooks(
    book: Rulebook, attempts: Sequence[SettledAttempt], functions: Functions | None
) -> list[Rulebook]:
    """One rulebook per attempt, in order. Functions are not called for failed attempts, which get no reward."""
    if functions is None or not any(isinstance(rule, FunctionRule) for rule in book.rules):
        return [book] * len(attempts)
    judged = [attempt for attempt in attempts if attempt.ended.status == "succeeded"]
    views = [view_of(attempt.ended, attempt.settled, attempt.evidence) for attempt in judged]
    found = await functions.answers(views)
    answers = {attempt.subject: answer for attempt, answer in zip(judged, found, strict=True)}
    return [replace(book, rules=answered(book.rules, answers.get(attempt.subject, {}))) for attempt in attempts]
