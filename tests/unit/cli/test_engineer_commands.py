"""The commands of the RL engineer: their help, their mistakes in one sentence, and feedback as the gateway takes it."""

from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from typer.testing import CliRunner, Result

import command_support as s
from leyden.cli.app import app
from leyden.cli.feedback import Feedback, send_feedback
from leyden.cli.gateway_requests import gateway_of
from leyden.client.gateway import GatewayClient
from leyden.events import SpanKind
from leyden.ids import AttemptRef
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.normalise import normalise_traces
from leyden.ingest.dialects import DIALECTS
from leyden.stack.errors import StackError

TEXT = {"COLUMNS": "200", "TERM": "dumb"}


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "LEYDEN_GATEWAY_URL", "LEYDEN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=TEXT)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["inspect"], ["--attempt", "--data-dir", "--json", "--prefix"]),
        (["export"], ["--format", "--out", "--policy", "--group", "--from", "--to", "--min-reward", "--of"]),
        (["rewards"], ["--window", "--by", "--outcome"]),
        (["replay"], ["--name", "--settings", "--from", "--to", "--source-prefix", "--no-train", "diff"]),
        (["replay", "diff"], ["--policy", "--top", "--data-dir"]),
        (["feedback"], ["--name", "--value", "--attempt", "--comment", "--gateway", "--api-key"]),
    ],
)
def test_help_names_every_option(command: list[str], options: list[str]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == 0
    assert [option for option in options if option not in done.output] == []


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", s.A],
        ["export", "--out", "x"],
        ["rewards"],
        ["replay", "diff", "live", "again"],
        ["replay", "--name", "again"],
    ],
)
def test_a_folder_without_a_stack_is_one_clear_sentence(tmp_path: Path, command: list[str]) -> None:
    done = run(*command, "--data-dir", tmp_path / "none")
    assert done.exit_code == 1
    assert str(tmp_path / "none") in done.output and "--data-dir" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["inspect", "abc"], "is neither a rollout id"),
        (["export", "--out", "x", "--format", "csv"], "use one of parquet, jsonl, trl, verl, llama-factory"),
        (["export", "--out", "x", "--of", "A B"], "is not a set of transitions"),
        (["feedback", "abc", "--name", "n", "--value", "1"], "is neither a rollout id"),
        (["feedback", s.A, "--name", "n", "--value", "nan"], "must be a finite number"),
        (["feedback", s.A, "--name", "n", "--value", "1", "--gateway", "host:1"], "is not a gateway URL"),
    ],
)
def test_a_mistake_is_told_before_anything_is_started(command: list[str], said: str) -> None:
    done = run(*command)
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())


def test_a_replay_without_a_name_is_refused_and_diff_needs_none() -> None:
    done = run("replay")
    assert done.exit_code == 2
    assert "--name" in done.output
    assert "is not a set of transitions" in run("replay", "diff", "A", "B", "--data-dir", "none").output


def answering(answer: httpx.Response) -> tuple[GatewayClient, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer

    return GatewayClient("http://gateway", "key", 0.0, httpx.MockTransport(handle)), seen


FEEDBACK = Feedback(AttemptRef(s.A, 2), "thumbs_up", 1.0, "well done")


def test_feedback_is_an_evaluation_in_the_attempts_trace() -> None:
    gateway, seen = answering(httpx.Response(200))
    send_feedback(FEEDBACK, gateway)
    (request,) = seen
    assert request.url.path == "/v1/traces"
    assert request.headers["authorization"] == "Bearer key"
    (resource,) = ExportTraceServiceRequest.FromString(request.content).resource_spans
    (span,) = resource.scope_spans[0].spans
    assert span.trace_id.hex() == f"{s.A}0002"
    assert span.parent_span_id == b""
    said = {a.key: a.value.string_value or a.value.double_value for a in span.attributes}
    assert said == {
        "gen_ai.evaluation.name": "thumbs_up",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.evaluation.explanation": "well done",
    }


def test_ingest_makes_of_feedback_what_the_reward_service_takes_for_a_reward() -> None:
    gateway, seen = answering(httpx.Response(200))
    send_feedback(FEEDBACK, gateway)
    (made,) = normalise_traces(ExportTraceServiceRequest.FromString(seen[0].content), DIALECTS)
    assert isinstance(made, Normalised)
    span = made.event()
    assert (span.kind, span.rollout_id, span.attempt) == (SpanKind.EVALUATION, s.A, 2)
    assert span.evaluation is not None
    assert (span.evaluation.name, span.evaluation.value) == ("thumbs_up", 1.0)


REJECTED = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=1)).SerializeToString()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(401, text="wrong key"), "was refused.*wrong key.*LEYDEN_API_KEY"),
        (httpx.Response(413, text="too large"), "was refused.*too large"),
        (httpx.Response(503, text="busy"), "was not delivered.*busy"),
        (
            httpx.Response(200, content=REJECTED, headers={"content-type": "application/x-protobuf"}),
            "the gateway rejected its span",
        ),
    ],
)
def test_what_the_gateway_refuses_is_said(answer: httpx.Response, said: str) -> None:
    gateway, _ = answering(answer)
    with pytest.raises(StackError, match=said):
        send_feedback(FEEDBACK, gateway)


def test_without_a_gateway_and_a_running_stack_feedback_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"leyden up.*pass --gateway"):
        gateway_of(None, None, tmp_path)
