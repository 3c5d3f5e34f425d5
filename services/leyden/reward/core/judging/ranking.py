"""Ranking: compares the rollouts of a group in one question, and gives each its score.

Relative scores are easier for a model than absolute ones, and they suffice: advantages are relative to the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events import Evidence, JsonObject, Judgement, VerdictRecorded
from leyden.events.base import Record
from leyden.ids import AttemptRef, derive
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.judging import prompts
from leyden.reward.core.judging.judge import RankingJudge
from leyden.reward.core.judging.question import Opinion, Question, read_scores
from leyden.reward.core.judging.transcript import blocks_of, cut
from leyden.reward.core.judging.verdict import verdict
from leyden.reward.core.view import view_of


class Member(Record):
    """A finished rollout of a group. Failed ones count as members but are not compared."""

    subject: str
    rollout_id: str
    attempt: int
    ended_at: AwareDatetime
    group_size: int
    status: Literal["succeeded", "failed"]
    blocks: tuple[str, ...] = ()

    @property
    def ref(self) -> AttemptRef:
        """Its attempt."""
        return AttemptRef(self.rollout_id, self.attempt)


def member_of(judge: RankingJudge, attempt: SettledAttempt) -> Member:
    """The member for a settled attempt, with its transcript cut to the judge's limit."""
    ended, blocks = attempt.ended, list[str]()
    if ended.status == "succeeded":
        blocks = blocks_of(view_of(ended, attempt.settled, attempt.evidence), judge.show_metadata)
    if sum(map(len, blocks)) > judge.max_chars:
        blocks = [cut("\n\n".join(blocks), judge.max_chars)]
    return Member(
        subject=attempt.subject,
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        ended_at=ended.event_time,
        group_size=ended.group_size,
        status=ended.status,
        blocks=tuple(blocks),
    )


@dataclass(frozen=True)
class Ranking:
    """The question for a group, and the members that each candidate represents."""

    question: Question
    candidates: tuple[tuple[str, ...], ...]
    """Rollout ids by candidate. Members with the same transcript share a candidate."""


def ranking_of(judge: RankingJudge, group_id: str, members: Sequence[Member]) -> Ranking | None:
    """The question about `members`; None if there are no two different ones.

    Candidates are ordered by a hash of group and transcript, so the order is fixed and favours no rollout.
    """
    by_story: dict[tuple[str, ...], list[str]] = {}
    for member in sorted(members, key=lambda one: one.rollout_id):
        if member.status == "succeeded":
            by_story.setdefault(member.blocks, []).append(member.rollout_id)
    stories = sorted(by_story, key=lambda blocks: derive("candidate", group_id, *blocks))
    if len(stories) < 2:
        return None
    return Ranking(_ranking_question(judge, stories), tuple(tuple(by_story[story]) for story in stories))


def _ranking_question(judge: RankingJudge, stories: Sequence[tuple[str, ...]]) -> Question:
    common = 0
    while all(len(story) > common and story[common] == stories[0][common] for story in stories):
        common += 1
    share = judge.max_chars // (len(stories) + 1)
    sections = [f"== All candidates begin alike ==\n{cut(chr(10).join(stories[0][:common]), share)}"] if common else []
    for number, story in enumerate(stories, start=1):
        rest = "\n\n".join(story[common:]) or "(nothing more)"
        sections.append(f"== Candidate {number} ==\n{cut(rest, share)}")
    record = "\n\n".join(sections)
    tag = prompts.tag_of(record)
    role = "You compare runs of one agent on the same task with each other. You are given the record of each."
    messages: tuple[JsonObject, ...] = (
        prompts.system(role, judge.rubric or prompts.RANKING, prompts.RANKING_ANSWER, tag),
        {"role": "user", "content": prompts.enclosed(record, tag)},
    )
    request = prompts.request(judge, messages, prompts.ranking_schema())
    return Question(request, partial(read_scores, count=len(stories)))


class GroupAnswer(Record):
    """The result of a group's ranking. Stored before any verdict is published, so all members get the same result."""

    opinions: dict[str, tuple[float, str]] = Field(default_factory=dict)
    """Rollout id → score, explanation."""
    reason: str = ""
    """Why members are missing in `opinions`."""
    failure: str | None = None

    @classmethod
    def of(cls, ranking: Ranking, opinions: Sequence[Opinion]) -> "GroupAnswer":
        """The result for `ranking`: every member gets the score of its candidate."""
        said = zip(ranking.candidates, opinions, strict=True)
        found = {rollout: (o.score, o.explanation) for candidate, o in said for rollout in candidate}
        return cls(opinions=found, reason="settled after its group had been ranked")


def ranking_verdict(judge: RankingJudge, member: Member, answer: GroupAnswer) -> VerdictRecorded:
    """The verdict for one member."""
    if answer.failure is not None:
        return verdict(judge, member.ref, member.ended_at, failure=answer.failure)
    if member.rollout_id not in answer.opinions:
        return verdict(judge, member.ref, member.ended_at, explanation=f"no opinion: {answer.reason}")
    score, explanation = answer.opinions[member.rollout_id]
    evidence = Evidence(kind="rollout", id=member.rollout_id)
    said = [Judgement(name=judge.name, value=score, evidence=evidence)]
    return verdict(judge, member.ref, member.ended_at, said, explanation)
