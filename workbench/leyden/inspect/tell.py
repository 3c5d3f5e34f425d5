"""Makes the report on one attempt from a rollout's events. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from leyden.credit.core.assemble import Attempt, State
from leyden.events import (
    GroupCredited,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    SequenceCredited,
    SpanKind,
    SpanRecorded,
    without_replaced,
)
from leyden.ids import AttemptRef
from leyden.inspect.evidence import RolloutEvidence
from leyden.inspect.report import CallLine, CreditLine, RewardLine, RolloutReport, Said, ToolLine, Trained
from leyden.inspect.said import answer_of, new_from, prompt_of
from leyden.inspect.why import attempt_notes, attempt_of, call_reason, group_notes
from leyden.reading.revisions import NewestRevisions

TOKEN_BYTES = 4


def report_on(evidence: RolloutEvidence, attempt: int) -> RolloutReport:
    """The report on `attempt`, with the newest revision of its rewards and of its group."""
    started = next(iter(evidence.of(RolloutStarted, attempt)), None)
    assembled = attempt_of(evidence.own, AttemptRef(evidence.rollout_id, attempt))
    ended, settled, completed = assembled.ended, assembled.settled, assembled.completed
    calls = sorted(evidence.of(ModelCallRecorded, attempt), key=lambda call: (call.started_at, call.call_id))
    spans = without_replaced(evidence.of(SpanRecorded, attempt))
    spans.sort(key=lambda span: (span.start_unix_nano, span.span_id))
    rewards = evidence.of(RewardAssigned, attempt)
    sequences, groups = newest_credit(evidence.credited, attempt)
    lines = _calls(calls, settled, sequences, bool(groups), _rollout_reason(groups, evidence.rollout_id))
    index = {line.call_id: line.index for line in lines}
    about = ended or started
    task = ended.task if ended else None
    counted = [r for r in rewards if completed is not None and r.event_id in completed.reward_ids]
    return RolloutReport(
        rollout_id=evidence.rollout_id,
        attempt=attempt,
        attempts=evidence.attempts,
        task_id=task.task_id if task else started.task_id if started else None,
        mode=task.mode if task else None,
        task_input=task.input if task else None,
        group_id=about.group_id if about else None,
        group_size=about.group_size if about else None,
        runner=started.runner if started else None,
        status=_status(ended),
        seconds=(ended.event_time - ended.started_at).total_seconds() if ended else None,
        policy_versions=sorted({f"{c.policy}@{c.policy_version}" for c in calls if c.policy is not None}),
        rewards_revision=completed.revision if completed else None,
        total_reward=sum(r.value * r.weight for r in counted) if completed and counted else None,
        calls=lines,
        tools=[_tool(span, calls, index) for span in spans if span.kind is SpanKind.TOOL_CALL and span.tool],
        rewards=[_reward(reward, spans, index, completed) for reward in rewards],
        credits=[_credit(group, sequences, evidence.rollout_id) for group in groups],
        notes=_notes(evidence, assembled, groups),
    )


def _rollout_reason(groups: Iterable[GroupCredited], rollout_id: str) -> str | None:
    """Why credit left the whole rollout out, as it published it; None if it did not."""
    return next((reason for group in groups if (reason := group.left_out.get(rollout_id))), None)


def _notes(evidence: RolloutEvidence, attempt: Attempt, groups: Sequence[GroupCredited]) -> list[str]:
    """The true reason first: what credit published. What its defaults would say is left out where it decided."""
    own = attempt_notes(attempt)
    if attempt.state in (State.OPEN, State.ABANDONED):
        return own
    of_group = group_notes(evidence.rollout_id, evidence.closed, groups, evidence.members)
    if not groups:
        return own + of_group
    return of_group + own if _rollout_reason(groups, evidence.rollout_id) else of_group


def newest_credit(
    credited: Iterable[SequenceCredited | GroupCredited], attempt: int
) -> tuple[list[SequenceCredited], list[GroupCredited]]:
    """The attempt's sequences and its group's ends, each once, of the newest published revision."""
    newest = NewestRevisions[SequenceCredited | GroupCredited]()
    for event in credited:
        newest.add(event, event)
    events = [event for _, kept in newest.newest() for event in kept.values()]
    sequences = [event for event in events if isinstance(event, SequenceCredited) and event.attempt == attempt]
    sequences.sort(key=lambda s: (s.credit, s.policy, s.sequence_index))
    return sequences, [event for event in events if isinstance(event, GroupCredited)]


def _status(ended: RolloutEnded | None) -> str:
    if ended is None:
        return "running"
    failure = f" ({ended.failure.failure_class})" if ended.failure else ""
    return ended.status + failure + ("" if ended.final else ", to be retried")


def _calls(
    calls: Sequence[ModelCallRecorded],
    settled: RolloutSettled | None,
    sequences: Sequence[SequenceCredited],
    decided: bool,
    rollout_reason: str | None,
) -> list[CallLine]:
    trained: dict[str, list[Trained]] = {}
    agents: dict[str, str] = {}
    lineages: dict[tuple[str, str], int] = {}
    for sequence in sequences:
        number = lineages[sequence.credit, sequence.policy] = lineages.get((sequence.credit, sequence.policy), -1) + 1
        for t in sequence.transitions:
            line = Trained(
                credit=sequence.credit,
                policy=sequence.policy,
                choice=t.choice,
                lineage=number,
                tokens=t.end - t.start,
                context_tokens=t.start,
                reward=t.reward,
                return_=t.return_,
                advantage=t.advantage,
                value=t.value,
            )
            trained.setdefault(t.call_id, []).append(line)
            agents |= {t.call_id: t.agent_name} if t.agent_name else {}
    lines: list[CallLine] = []
    before: list[Said] = []
    for i, call in enumerate(calls):
        prompt, answers = prompt_of(call.request), [answer_of(choice) for choice in call.choices]
        credit = trained.get(call.call_id, [])
        lines.append(
            CallLine(
                index=i,
                call_id=call.call_id,
                started_at=call.started_at,
                agent=call.agent_name or agents.get(call.call_id),
                policy=call.policy,
                policy_version=call.policy_version,
                prompt_tokens=len(call.prompt_token_ids) // TOKEN_BYTES or call.usage.prompt_tokens,
                response_tokens=[len(choice.token_ids) // TOKEN_BYTES for choice in call.choices],
                finish=[choice.finish_reason for choice in call.choices],
                latency_s=call.latency_s,
                error=call.error,
                prompt=prompt,
                new_from=new_from(prompt, before),
                answers=answers,
                trained=credit,
                left_out=None if credit else _left_out(call, settled, decided, rollout_reason),
            )
        )
        before = prompt + answers[:1]
    return lines


def _left_out(
    call: ModelCallRecorded, settled: RolloutSettled | None, decided: bool, rollout_reason: str | None
) -> str | None:
    """Why nothing of a call is trained; None while that is not decided."""
    if settled is not None and call.call_id not in settled.call_ids:
        return "it came after the rollout's end"
    if rollout_reason is not None:
        return f"its rollout is left out: {rollout_reason}"
    reason = call_reason(call)
    if reason is None and decided:
        return "credit left it out: see `policies`, `agents`, `max_sequence_tokens` in its run file, and the notes"
    return reason


def _tool(span: SpanRecorded, calls: Iterable[ModelCallRecorded], index: Mapping[str, int]) -> ToolLine:
    assert span.tool is not None
    asked = next((index[c.call_id] for c in calls if span.tool.call_id and _asked(c, span.tool.call_id)), None)
    return ToolLine(
        name=span.tool.name,
        status=span.status,
        error=span.error_message or span.error_type,
        seconds=(span.end_unix_nano - span.start_unix_nano) / 1e9,
        asked_by=asked,
        arguments=span.tool.arguments,
        result=span.tool.result,
    )


def _asked(call: ModelCallRecorded, tool_call_id: str) -> bool:
    """Whether a choice of `call` has a tool call with this id."""
    asked = [tool for choice in call.choices for tool in _list(choice.message.get("tool_calls"))]
    return any(isinstance(tool, dict) and tool.get("id") == tool_call_id for tool in asked)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _reward(
    reward: RewardAssigned, spans: Iterable[SpanRecorded], index: Mapping[str, int], completed: RewardsCompleted | None
) -> RewardLine:
    evidence = reward.evidence
    said = f"{evidence.kind} {evidence.id[:8]}"
    if evidence.kind == "rollout":
        said = "rollout"
    elif evidence.kind == "call" and evidence.id in index:
        said = f"call {index[evidence.id]}"
    elif (span := next((s for s in spans if s.event_id == evidence.id), None)) is not None:
        said = f"tool {span.tool.name}" if span.tool else f"{span.kind} {span.name}"
    return RewardLine(
        rule=reward.rule,
        name=reward.name,
        value=reward.value,
        weight=reward.weight,
        contribution=reward.value * reward.weight,
        evidence=said,
        call=index.get(reward.call_id) if reward.call_id else None,
        counted=completed is not None and reward.event_id in completed.reward_ids,
    )


def _credit(group: GroupCredited, sequences: Iterable[SequenceCredited], rollout_id: str) -> CreditLine:
    mine = [s for s in sequences if (s.credit, s.policy) == (group.credit, group.policy)]
    return CreditLine(
        credit=group.credit,
        policy=group.policy,
        revision=group.revision,
        lineages=len(mine),
        tokens_trained=sum(t.end - t.start for s in mine for t in s.transitions),
        tokens=sum(len(s.token_ids) // TOKEN_BYTES for s in mine),
        rollout_reward=mine[0].rollout_reward if mine else None,
        group_members=group.members,
        group_sequences=group.sequences,
        group_mean=group.reward_mean,
        group_std=group.reward_std,
        zero_variance=group.zero_variance,
        closed_by=group.closed_by,
        left_out=group.left_out.get(rollout_id),
    )
