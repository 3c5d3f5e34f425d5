"""`leyden inspect`: the report says what the events say, of each call what is trained, and why the rest is not."""

import asyncio
from typing import Any

import pytest
from rich.console import Console

import command_support as s
from leyden.cli.inspecting import print_report
from leyden.credit.core.actions import Context
from leyden.credit.core.assemble import Missing
from leyden.credit.core.reasons import Reason
from leyden.events import (
    Choice,
    Event,
    Evidence,
    Failure,
    FailureClass,
    GroupClosed,
    GroupClosing,
    Sampling,
    TaskEnqueued,
    pack_ints,
)
from leyden.ids import derive, rollout_id_of
from leyden.inspect.evidence import gather
from leyden.inspect.report import RolloutReport
from leyden.inspect.tell import report_on
from leyden.inspect.why import CONTEXT_REASONS, LEFT_OUT, WAITS


def report(events: list[Event], rollout_id: str = s.A, attempt: int | None = None) -> RolloutReport:
    evidence = asyncio.run(gather(s.FakeLog(events), rollout_id))  # type: ignore[arg-type]
    assert evidence is not None
    return report_on(evidence, evidence.attempts[-1] if attempt is None else attempt)


def whole() -> list[Event]:
    return [
        *s.life(s.A, s.calls_of_a(), 1.0),
        s.tool_span(),
        *s.life(s.B, [s.call_of_b()], 0.0),
        *s.credited(),
    ]


def test_each_call_shows_its_tokens_its_credit_and_its_lineage() -> None:
    found = report(whole())
    assert [(c.prompt_tokens, c.response_tokens, c.finish, c.left_out) for c in found.calls] == [
        (3, [2], ["stop"], None),
        (6, [3], ["stop"], None),
    ]
    trained = [one for call in found.calls for one in call.trained]
    assert [(t.lineage, t.tokens, t.context_tokens, t.reward, t.return_, t.advantage) for t in trained] == [
        (0, 2, 3, 0.0, 1.0, 0.7),
        (0, 3, 6, 1.0, 1.0, 0.7),
    ]
    assert (found.status, found.seconds, found.group_id, found.total_reward) == ("succeeded", 10.0, s.GROUP, 1.0)
    assert (found.policy_versions, found.notes) == (["p@3"], [])
    (credit,) = found.credits
    assert (credit.lineages, credit.tokens_trained, credit.tokens, credit.revision) == (1, 5, 9, 0)


def test_the_newest_revision_counts_and_each_credit_service_has_its_line() -> None:
    events = [*whole(), *s.credited((0.1, -0.1), revision=1), *s.credited((5.0, -5.0), credit="other")]
    found = report(events)
    assert [(c.credit, c.revision) for c in found.credits] == [("", 1), ("other", 0)]
    assert [(t.credit, t.advantage) for t in found.calls[0].trained] == [("", 0.1), ("other", 5.0)]


def test_a_tool_names_the_call_that_asked_and_a_reward_what_it_was_for() -> None:
    events = whole()
    tool_reward = s.reward(s.A, "tool_status", 0.5, Evidence(kind="span", id=s.tool_span().event_id), call_id="a1")
    late = s.reward(s.A, "thumbs", 1.0, Evidence(kind="call", id="a2"))
    given = [s.outcome(s.A, 1.0), tool_reward]
    found = report([*events, tool_reward, late, s.completed(s.A, given, revision=1)])
    assert [(t.name, t.asked_by, t.seconds) for t in found.tools] == [("search", 0, 0.5)]
    assert {r.rule: (r.evidence, r.call, r.counted) for r in found.rewards} == {
        "outcome": ("rollout", None, True),
        "tool_status": ("tool search", 0, True),
        "thumbs": ("call 1", None, False),
    }
    assert (found.rewards_revision, found.total_reward) == (1, 1.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": "502: away"}, "the engine answered with an error"),
        ({"policy": None}, "its model is not trained"),
        ({"policy_version": None}, "the engine did not say which version answered"),
        ({"sampling": Sampling(temperature=0.0)}, "greedy: at temperature 0 the action has no probability"),
        ({"prompt_token_ids": b""}, "its token ids are missing"),
        ({"choices": [Choice(index=0, token_ids=pack_ints([1]))]}, "it does not have one logprob per token"),
    ],
)
def test_a_call_that_is_context_says_why(changes: dict[str, Any], reason: str) -> None:
    extra = s.call("a3", s.A, list(range(20)), [1], [s.ASK], s.ANSWER, **changes)
    calls = [*s.calls_of_a(), extra]
    found = report([*s.life(s.A, calls, 1.0), *s.credited()])
    (line,) = [line for line in found.calls if line.call_id == "a3"]
    assert (line.left_out, line.trained) == (reason, [])


def test_whatever_keeps_credit_from_training_is_explained() -> None:
    assert set(CONTEXT_REASONS) == set(Context)
    assert set(WAITS) == set(Missing)
    of_the_group = {Reason.NO_VALUE, Reason.TOO_LONG, Reason.STALE, Reason.TOO_FEW, Reason.GROUP_CLOSED}
    of_the_group |= {Reason.NOT_FINITE}
    assert set(LEFT_OUT) == set(Reason) - of_the_group


def test_a_call_after_the_end_and_one_that_credit_left_out_are_told_apart() -> None:
    left = s.call("a3", s.A, list(range(20)), [1], [s.ASK], s.ANSWER)
    late = s.call("a4", s.A, list(range(30)), [1], [s.ASK], s.ANSWER)
    found = report([*s.life(s.A, [*s.calls_of_a(), left], 1.0), late, *s.credited()])
    reasons = {line.call_id: line.left_out or "" for line in found.calls}
    assert reasons["a4"] == "it came after the rollout's end"
    assert reasons["a3"].startswith("credit left it out")


JUDGED = s.completed(s.A, [s.outcome(s.A, 1.0)])
FAILED = Failure(failure_class=FailureClass.TIMEOUT, message="600 s")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "It has not ended"),
        ([s.ended(s.A, [], status="failed", failure=FAILED)], "It failed (timeout: 600 s)"),
        (
            [s.ended(s.A, [], final=False, status="failed", failure=FAILED)],
            "was retried, or will be; nothing of it is ever trained",
        ),
        ([s.ended(s.A, ["a1"])], "reward waits for 1 calls and 1 spans"),
        ([s.ended(s.A, []), s.settled(s.A, [])], "Its rewards are not complete"),
        ([s.ended(s.A, ["a1"]), s.settled(s.A, ["a1"])], "1 of its 1 settled calls are not in the log"),
        (
            [s.ended(s.A, []), s.settled(s.A, []), s.completed(s.A, [s.outcome(s.A, 1.0)])],
            "Its rewards are not complete",
        ),
        ([s.ended(s.A, []), s.settled(s.A, []), s.completed(s.A, [])], "It has no call that can be trained"),
        ([s.ended(s.A, []), s.settled(s.A, [], complete=False, missing=["spans:2"])], "incomplete, missing spans:2"),
        ([s.ended(s.A, []), s.settled(s.A, []), s.completed(s.A, [])], "It has no reward: nothing judged it"),
        (
            [s.ended(s.A, []), s.settled(s.A, []), s.completed(s.A, [], failed_rules=["judge: timeout: 30 s"])],
            "A reward rule failed, so its return is unknown: judge: timeout: 30 s.",
        ),
        ([s.ended(s.A, [], task={"task_id": "t", "mode": "validation"})], "A validation task"),
    ],
)
def test_the_attempt_says_what_keeps_it_from_training(events: list[Event], said: str) -> None:
    assert said in " ".join(report([s.started(s.A), *events]).notes)


def test_the_group_says_why_it_left_the_rollout_out() -> None:
    late = GroupClosed(
        **s.ABOUT, event_id="c", group_id=s.GROUP, rollout_ids=[s.B], reason=GroupClosing.DEADLINE
    )  # fmt: skip
    notes = report([*s.life(s.A, s.calls_of_a(), 1.0), late, s.group_end(0, left_out={s.A: "too long"})]).notes
    assert "It came after its group was closed (deadline), so it is not a member." in notes
    assert "Left out for policy p: too long." in notes
    flat = report([*s.life(s.A, s.calls_of_a(), 1.0), *s.credited((0.0, 0.0), zero_variance=True)]).notes
    assert flat == ["All members of the group have the same return for policy p: every advantage is 0."]


def test_a_group_that_is_open_names_every_member_that_it_waits_for() -> None:
    names = [rollout_id_of(s.GROUP, index) for index in range(8)]
    task = TaskEnqueued(
        **s.ABOUT, event_id="t", task=s.ended(s.A, []).task, group_id=s.GROUP, rollout_ids=names[:6]
    )  # fmt: skip
    sized = {"group_size": 9}
    events: list[Event] = [
        task,
        *s.life(names[0], [s.call("b1", names[0], [1], [2], [s.ASK], s.ANSWER)], 1.0),
        s.started(names[2], **sized),
        s.started(names[3], **sized), s.ended(names[3], [], final=False, **sized),
        s.ended(names[4], [], **sized),
        s.ended(names[5], [], **sized), s.settled(names[5], []),
        s.ended(names[6], [], status="failed", failure=FAILED, **sized),
        s.ended(names[7], ["lost"], **sized), s.settled(names[7], ["lost"]), s.completed(names[7], []),
    ]  # fmt: skip
    notes = report(events, names[0]).notes
    assert notes[0] == "Its group is not closed. It waits for 8 of 9 members:"
    assert {note.strip() for note in notes[1:]} == {
        f"{names[1]} has not started",
        f"{names[2]} is running (attempt 0)",
        f"{names[3]} waits for attempt 1",
        f"{names[4]} has ended; its evidence is not settled",
        f"{names[5]} has ended; its rewards are not complete",
        f"{names[6]} has ended; its evidence is not settled",
        f"{names[7]} has ended; some of its settled calls are not in the log",
        "1 more with no events yet",
    }


def test_a_group_whose_members_are_all_over_waits_for_credit_alone() -> None:
    notes = report([*s.life(s.A, s.calls_of_a(), 1.0), *s.life(s.B, [s.call_of_b()], 0.0)]).notes
    assert notes == ["All members of its group have finished; credit has not published the group yet."]


def test_an_unknown_rollout_has_no_report_and_attempts_do_not_mix() -> None:
    assert asyncio.run(gather(s.FakeLog(whole()), rollout_id_of("other", 0))) is None  # type: ignore[arg-type]
    second = s.call("a9", s.A, [1], [2], [s.ASK], s.ANSWER, attempt=1, event_id=derive("call", "a9"))
    events = [*whole(), s.started(s.A, attempt=1), second]
    assert [line.call_id for line in report(events, attempt=1).calls] == ["a9"]
    assert [line.call_id for line in report(events, attempt=0).calls] == ["a1", "a2"]


def test_the_tables_hold_markup_of_the_log_as_text() -> None:
    console = Console(width=200, record=True)
    odd = s.started(s.A, task_id="[bold]odd[/bold]")
    print_report(report([odd, *whole()[1:]]).model_copy(update={"task_id": "[bold]odd[/bold]"}), console)
    text = console.export_text()
    assert "[bold]odd[/bold]" in text
    assert "0.7" in text
