"""What the gateway knows better than the runner about why an attempt failed."""

from datetime import UTC, datetime
from typing import Any

import pytest

from leyden.events import Choice, Failure, FailureClass, FailureEvidence, ModelCallRecorded
from leyden.gateway.core.failures import classified
from leyden.gateway.core.reply import CallNote, LastCall, note_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOOP = 5


def failed(kind: str, **evidence: Any) -> Failure:
    return Failure(failure_class=FailureClass(kind), message="m", evidence=FailureEvidence(**evidence))


def last(error: str = "", finish: str = "stop", repeats: int = 1) -> LastCall:
    return LastCall("c9", CallNote(error, finish, "o"), repeats)


def call(*messages: dict[str, Any], **changes: Any) -> ModelCallRecorded:
    choices = [Choice(index=n, message=message, finish_reason="stop") for n, message in enumerate(messages)]
    fields = {
        "event_id": "e", "event_time": NOW, "producer": "gateway", "call_id": "c", "route": "/v1/chat/completions",
        "requested_model": "m", "request": {}, "choices": choices, "started_at": NOW, "latency_s": 0.1,
    }  # fmt: skip
    return ModelCallRecorded.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("reported", "seen", "shown"),
    [
        ("agent_exception", last(), "agent_exception"),
        ("agent_exception", last(error="engine 500: boom"), "model_error"),
        ("agent_exception", last(error="engine 400: This model's maximum context length is 64"), "context_overflow"),
        ("model_error", last(error="engine 400: maximum context length is 64 tokens"), "context_overflow"),
        ("agent_exception", last(error="cut_off: the caller went away"), "agent_exception"),
        ("agent_exception", last(error="internal: RuntimeError('a bug')"), "agent_exception"),
        ("agent_exception", last(repeats=LOOP), "repetition_loop"),
        ("agent_exception", last(repeats=LOOP - 1), "agent_exception"),
        ("timeout", last(repeats=LOOP), "repetition_loop"),
        ("context_overflow", last(repeats=LOOP), "repetition_loop"),
        ("infrastructure", last(error="engine 500: boom", repeats=LOOP), "infrastructure"),
        ("runner_lost", last(repeats=LOOP), "runner_lost"),
        ("cancelled", last(repeats=LOOP), "cancelled"),
        ("tool_error", last(error="engine 500: boom"), "tool_error"),
        ("malformed_output", last(finish="length"), "malformed_output"),
    ],
)
def test_the_runners_word_stands_unless_the_last_calls_say_otherwise(reported: str, seen: LastCall, shown: str) -> None:
    failure = classified(failed(reported), seen, LOOP)
    assert failure.failure_class == shown
    assert failure.evidence is not None and failure.evidence.call_id == "c9"
    assert failure.evidence.reported_class == (None if shown == reported else reported)


def test_without_calls_and_without_a_report_it_is_the_agents_exception() -> None:
    assert classified(None, None, LOOP) == Failure(failure_class=FailureClass.AGENT_EXCEPTION)


def test_the_evidence_of_the_last_call_is_the_gateways_and_the_rest_is_kept() -> None:
    forged = failed("tool_error", tool="search", traceback="Traceback", call_id="forged", repeats=7)
    evidence = classified(forged, last("engine 500: x", "length", 2), LOOP).evidence
    assert evidence == FailureEvidence(
        tool="search",
        traceback="Traceback",
        call_id="c9",
        call_error="engine 500: x",
        finish_reason="length",
        repeats=2,
    )
    assert classified(forged, None, LOOP).evidence == FailureEvidence(tool="search", traceback="Traceback")


def test_a_failure_is_cut_to_a_size_that_may_stay_in_the_log() -> None:
    long = Failure(
        failure_class=FailureClass.TOOL_ERROR,
        message="m" * 9000,
        evidence=FailureEvidence(traceback="x" * 9000 + "the end", tool="t" * 9000),
    )
    cut = classified(long, None, LOOP)
    assert len(cut.message) == 2000
    assert cut.evidence is not None and cut.evidence.traceback is not None and cut.evidence.tool is not None
    assert len(cut.evidence.traceback) == 4000 and cut.evidence.traceback.endswith("the end")
    assert len(cut.evidence.tool) == 256


def tool_call(call_id: str, arguments: str = '{"a": 1}') -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": call_id, "function": function}]}


def test_the_same_output_has_the_same_note_whatever_its_ids() -> None:
    assert note_of(call(tool_call("x"))) == note_of(call(tool_call("y")))
    assert note_of(call(tool_call("x"))) != note_of(call(tool_call("x", '{"a": 2}')))
    assert note_of(call({"content": "a"})) != note_of(call({"content": "b"}))


def test_no_output_repeats_nothing() -> None:
    assert note_of(call()).output == note_of(call({"role": "assistant", "content": ""})).output == ""
    assert note_of(call(error="e" * 9000)).error == "e" * 500
