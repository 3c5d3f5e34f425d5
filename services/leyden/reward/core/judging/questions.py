"""Builds the questions of each kind of judge, and maps its opinions to rollouts and calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from leyden.events import Evidence, JsonObject, Judgement
from leyden.reward.core.calls import CallView
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.judging import prompts
from leyden.reward.core.judging.judge import AttemptJudge, JudgeSettings, NextStateJudge
from leyden.reward.core.judging.question import Opinion, Question, read_score
from leyden.reward.core.judging.transcript import blocks_of, cut, message_block, messages_of, tool_block, turn_of
from leyden.reward.core.view import RolloutView, view_of


@dataclass(frozen=True)
class About:
    """A question and the call it is about; None: the whole rollout."""

    question: Question
    call_id: str | None = None


def attempt_questions(judge: AttemptJudge, attempt: SettledAttempt) -> list[About]:
    """The questions to `judge` about one attempt; empty if there is nothing to judge."""
    view = view_of(attempt.ended, attempt.settled, attempt.evidence)
    if isinstance(judge, NextStateJudge):
        return [
            About(_step_question(judge, view, call, came_next), call.call_id) for call, came_next in consequences(view)
        ]
    role = "You judge how well an agent has done its task. You are given the record of one run."
    record = cut("\n\n".join(blocks_of(view, judge.show_metadata)), judge.max_chars)
    return [About(_score_question(judge, role, judge.rubric or prompts.RUBRIC, record))]


def judgements_of(judge: JudgeSettings, rollout_id: str, opinions: Sequence[tuple[About, Opinion]]) -> list[Judgement]:
    """The judgements to record for the opinions."""
    return [
        Judgement(
            name=judge.name,
            value=opinion.score,
            evidence=Evidence(kind="call", id=about.call_id)
            if about.call_id is not None
            else Evidence(kind="rollout", id=rollout_id),
            call_id=about.call_id,
        )
        for about, opinion in opinions
    ]


def explained(opinions: Sequence[tuple[About, Opinion]]) -> str:
    """The explanations, each with the id of its call."""
    said = [(f"{about.call_id}: " if about.call_id else "") + o.explanation for about, o in opinions if o.explanation]
    return "\n".join(said)


def consequences(view: RolloutView) -> list[tuple[CallView, str]]:
    """Each answered call of the policy with its consequence: the messages that follow the response in the next call
    that continues it, or else the tools it called. Calls without a consequence are omitted.
    """
    found = []
    for index, call in enumerate(view.calls):
        if call.policy is None or call.error is not None or not call.choices:
            continue
        blocks = _went_on(call, view.calls[index + 1 :])
        blocks = blocks or [tool_block(span) for span in view.tool_spans if view.call_that_asked(span) == call.call_id]
        if blocks:
            found.append((call, "\n\n".join(blocks)))
    return found


def _went_on(call: CallView, later: Sequence[CallView]) -> list[str]:
    before = [turn_of(message) for message in messages_of(call)]
    answers = [turn_of({"role": "assistant", **choice.message}) for choice in call.choices]
    for one in later:
        messages = messages_of(one)
        turns = [turn_of(message) for message in messages]
        at = len(before)
        if len(turns) > at + 1 and turns[:at] == before and turns[at] in answers:
            return [message_block(message) for message in messages[at + 1 :]]
    return []


def _step_question(judge: NextStateJudge, view: RolloutView, call: CallView, came_next: str) -> Question:
    role = "You judge one action of an agent by what came of it: the reaction of its user or of its tools."
    task = [f"Known about the task: {view.task.metadata}"] if judge.show_metadata and view.task.metadata else []
    context = "\n\n".join(message_block(message) for message in messages_of(call))
    action = "\n\n".join(message_block({"role": "assistant", **choice.message}) for choice in call.choices)
    third = judge.max_chars // 3
    sections = [
        *task,
        f"== Before the action ==\n{cut(context, third)}",
        f"== The action ==\n{cut(action, third)}",
        f"== What came next ==\n{cut(came_next, third)}",
    ]
    return _score_question(judge, role, judge.rubric or prompts.NEXT_STATE, "\n\n".join(sections))


def _score_question(judge: AttemptJudge, role: str, rubric: str, record: str) -> Question:
    tag = prompts.tag_of(record)
    messages: tuple[JsonObject, ...] = (
        prompts.system(role, rubric, prompts.score_answer(judge.scale), tag),
        {"role": "user", "content": prompts.enclosed(record, tag)},
    )
    request = prompts.request(judge, messages, prompts.score_schema(judge.scale))
    return Question(request, partial(read_score, scale=judge.scale))
