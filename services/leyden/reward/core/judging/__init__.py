"""Judging without IO: builds questions, parses responses, builds verdicts. The IO is in `leyden.reward.judges`."""

from leyden.reward.core.judging.judge import (
    AttemptJudge,
    JudgeSettings,
    NextStateJudge,
    RankingJudge,
    RubricJudge,
    lacking,
)
from leyden.reward.core.judging.question import ChatRequest, MalformedAnswerError, Opinion, Question
from leyden.reward.core.judging.rule import JudgeRule, StepJudgeRule, rule_of
from leyden.reward.core.judging.verdict import verdict

__all__ = [
    "AttemptJudge", "ChatRequest", "JudgeRule", "JudgeSettings", "MalformedAnswerError", "NextStateJudge", "Opinion",
    "Question", "RankingJudge", "RubricJudge", "StepJudgeRule", "lacking", "rule_of", "verdict",
]  # fmt: skip
