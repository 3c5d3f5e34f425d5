"""A rollout as environment variables, written and read again."""

from typing import Any

import pytest

from leyden.client.claims import Claim, environment_of, inherited
from leyden.ids import AttemptRef, new_rollout_id

REF = AttemptRef(new_rollout_id(), 2)
PARENT = f"00-{REF.trace_id}-00000000000000ff-01"


def claim(**fields: Any) -> Claim:
    base = f"http://gateway/rollouts/{REF.trace_id}/v1"
    return Claim(REF.rollout_id, REF.attempt, REF.trace_id, PARENT, base, "lrk-key", **fields)


def test_a_program_finds_its_model_its_spans_and_its_rollout() -> None:
    env = environment_of(
        claim=claim(input={"q": 1}, task_id="t", group_id="g"),
        gateway_url="http://gateway",
        traceparent=PARENT,
        base={"PATH": "/bin"},
    )
    assert env["PATH"] == "/bin"
    assert env["OPENAI_BASE_URL"] == env["OPENAI_API_BASE"] == f"http://gateway/rollouts/{REF.trace_id}/v1"
    assert env["ANTHROPIC_BASE_URL"] == f"http://gateway/rollouts/{REF.trace_id}"
    assert env["OPENAI_API_KEY"] == env["ANTHROPIC_API_KEY"] == env["LEYDEN_API_KEY"] == "lrk-key"
    assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == env["LEYDEN_GATEWAY_URL"] == "http://gateway"
    assert env["OTEL_EXPORTER_OTLP_HEADERS"] == "x-api-key=lrk-key"
    assert env["TRACEPARENT"] == PARENT
    assert env["LEYDEN_TASK_INPUT"] == '{"q": 1}'


def test_resource_attributes_of_the_user_are_kept_and_ours_replaced() -> None:
    before = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=agent,leyden.attempt=7"}
    env = environment_of(claim=claim(), gateway_url="http://gateway", traceparent=PARENT, base=before)
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == (
        f"service.name=agent,leyden.rollout_id={REF.rollout_id},leyden.attempt=2"
    )


def test_what_another_rollout_left_behind_and_foreign_keys_are_gone() -> None:
    before = {"LEYDEN_TASK_INPUT": "old", "LEYDEN_GROUP_ID": "old", "ANTHROPIC_AUTH_TOKEN": "secret"}
    before["CLAUDE_CODE_USE_VERTEX"] = "1"
    env = environment_of(claim=claim(), gateway_url="http://gateway", traceparent=PARENT, base=before)
    assert not set(before) & set(env)


def test_clients_read_the_models_name_and_are_told_to_export_nothing_elsewhere() -> None:
    env = environment_of(claim=claim(), gateway_url="http://gateway", traceparent=PARENT, base={"OPENAI_MODEL": "mine"})
    assert (env["OPENAI_MODEL"], "ANTHROPIC_MODEL" in env) == ("mine", False)
    assert env["OPENAI_AGENTS_DISABLE_TRACING"] == env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    before = {"OPENAI_MODEL": "mine", "OPENAI_AGENTS_DISABLE_TRACING": "0"}
    env = environment_of(claim=claim(), gateway_url="http://gateway", traceparent=PARENT, base=before, model="policy")
    assert env["OPENAI_MODEL"] == env["ANTHROPIC_MODEL"] == env["ANTHROPIC_SMALL_FAST_MODEL"] == "policy"
    assert env["OPENAI_AGENTS_DISABLE_TRACING"] == "0"


def test_an_input_too_long_for_a_variable_is_left_to_standard_input() -> None:
    env = environment_of(claim=claim(input="x" * 200_000), gateway_url="http://gateway", traceparent=PARENT, base={})
    assert "LEYDEN_TASK_INPUT" not in env


@pytest.mark.parametrize("value", [{"q": [1, "ü"]}, "plain text", 3, None])
def test_a_child_reads_what_was_written(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = claim(input=value, task_id="t", group_id="g", mode="validation")
    for name, text in environment_of(claim=written, gateway_url="http://gateway", traceparent=PARENT, base={}).items():
        monkeypatch.setenv(name, text)
    assert inherited() == written


def test_a_process_of_no_rollout_inherits_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYDEN_ROLLOUT_ID", raising=False)
    assert inherited() is None
    monkeypatch.setenv("LEYDEN_ROLLOUT_ID", "not one")
    assert inherited() is None
