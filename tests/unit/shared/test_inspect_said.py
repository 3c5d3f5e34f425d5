"""`leyden inspect` shows what was said in each call, and the first reason that it gives is the true one."""

import json
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import command_support as s
from leyden.cli.inspecting import print_report
from leyden.events import Choice, Event, Failure, FailureClass, Task
from leyden.inspect.evidence import RolloutEvidence
from leyden.inspect.report import RolloutReport
from leyden.inspect.said import answer_of, new_from, prompt_of
from leyden.inspect.tell import report_on

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["role", "content", "text", "type", "tool_calls", "function", "name", "arguments", "output"]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


def report(own: list[Event], credited: list[Any]) -> RolloutReport:
    return report_on(RolloutEvidence(s.A, own, credited), 0)


def text_of(found: RolloutReport) -> str:
    text = StringIO()
    print_report(found, Console(file=text, width=100))
    return text.getvalue()


WHOLE = report([*s.life(s.A, s.calls_of_a(), 1.0), s.tool_span()], s.credited())


def test_each_call_has_its_prompt_its_answer_and_its_tool_calls() -> None:
    first, second = WHOLE.calls
    assert [(one.role, one.text) for one in first.prompt] == [
        ("system", "Be brief."),
        ("user", "How high is the Zugspitze?"),
    ]
    (asked,) = first.answers[0].tool_calls
    assert (asked.id, asked.name, asked.arguments) == ("tool-1", "search", '{"query": "Zugspitze"}')
    assert (second.new_from, second.prompt[3].role, second.prompt[3].answers) == (3, "tool", "tool-1")
    assert second.answers[0].text == "It is 2,962 m high."
    document = json.loads(WHOLE.model_dump_json())
    assert document["calls"][1]["answers"][0]["text"] == "It is 2,962 m high."


def test_what_was_said_is_printed_once_with_the_trained_tokens_and_the_advantage() -> None:
    text = text_of(WHOLE)
    for line in (
        "user: How high is the Zugspitze?",
        'answer: calls search({"query": "Zugspitze"})',
        "→ 2 tokens trained, advantage 0.7",
        "… 3 messages as before",
        "tool: 2,962 m",
        "answer: It is 2,962 m high.",
        "→ 3 tokens trained, advantage 0.7",
    ):
        assert text.count(line) == 1, line


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"prompt": "Once"}, [("user", "Once")]),
        ({"input": "Hi", "instructions": "Be brief."}, [("system", "Be brief."), ("user", "Hi")]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, [("user", "Hi")]),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "4"}]}, [("tool", "4")]),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, [("user", "[image_url]")]),
        ({"messages": [{"role": "user", "content": None}], "system": [{"type": "text", "text": "S"}]},
         [("system", "S"), ("user", "")]),
        ({"input": ["one", "two"]}, [("user", "one\ntwo")]),
        ({}, []),
    ],
)  # fmt: skip
def test_requests_of_every_route_are_read(request_: dict[str, Any], said: list[tuple[str, str]]) -> None:
    assert [(one.role, one.text) for one in prompt_of(request_)] == said


@given(st.dictionaries(st.sampled_from(["messages", "input", "prompt", "system", "instructions"]), JSON), JSON)
def test_any_recorded_request_and_answer_can_be_shown(request_: dict[str, Any], message: Any) -> None:
    prompt = prompt_of(request_)
    assert new_from(prompt, []) == 0
    assert new_from(prompt, prompt) == len(prompt)
    answer_of(Choice(index=0, message=message if isinstance(message, dict) else {}))


VALIDATION: dict[str, Any] = {"task": Task(task_id=s.GROUP, mode="validation")}
FAILED: dict[str, Any] = {
    "status": "failed",
    "failure": Failure(failure_class=FailureClass.AGENT_EXCEPTION, message="KeyError: 'question'"),
}


def rollout(completed: dict[str, Any] | None = None, **ended: Any) -> list[Event]:
    calls = s.calls_of_a()
    ids = [one.call_id for one in calls]
    judged = s.completed(s.A, [], **(completed or {}))
    return [s.started(s.A), *calls, s.ended(s.A, ids, **ended), s.settled(s.A, ids), judged]


@pytest.mark.parametrize(
    ("own", "published"),
    [
        (rollout(**VALIDATION), "validation"),
        (rollout(**FAILED), "failed: agent_exception"),
        (
            rollout({"failed_rules": ["score: exception: KeyError: 'answer'"]}),
            "rule failed: score: exception: KeyError",
        ),
        (rollout(), "no reward"),
        (rollout(), "stale: 5 versions behind"),
    ],
)
def test_the_first_reason_is_the_one_that_credit_published(own: list[Event], published: str) -> None:
    found = report(own, [s.group_end(0, left_out={s.A: published})])
    assert found.notes[0] == f"Left out for policy p: {published}."
    assert {call.left_out for call in found.calls} == {f"its rollout is left out: {published}"}
    text = text_of(found)
    assert text.index(published) < text.index("How high is the Zugspitze?")
    assert "see `policies`" not in text


def test_what_the_defaults_would_leave_out_is_no_reason_where_credit_trained_it() -> None:
    own = [event for event in rollout() if event.type != "rollout-settled"]
    own.append(s.settled(s.A, ["a1", "a2"], complete=False, missing=["spans:1"]))
    assert report(own, s.credited()).notes == [], "with `incomplete: train` it is trained"
    assert "incomplete" in " ".join(report(own, []).notes)
