"""`leyden feedback`: which attempt it is for, unknown rollouts, and rewards that change nothing."""

import fcntl
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import command_support as s
from credit_support import T0, late_rewards, one_rollout, rollout
from leyden.cli.feedback import Asked, give_feedback, reads_log
from leyden.cli.feedback_effect import read_facts, without_effect
from leyden.client.gateway import GatewayClient
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.groups import select_rewards
from leyden.events import Event, FailureClass, RolloutEnded
from leyden.kafka.delivered import Retry
from leyden.kafka.types import KafkaError
from leyden.stack.errors import StackError
from leyden.stack.state import DataFolder, StackState


class Gateway:
    """Knows the newest attempts of some rollouts, and counts the attempts that it is sent spans of."""

    def __init__(self, newest: dict[str, int], looking: int = 404) -> None:
        self.newest, self.looking = newest, looking
        self.given: list[str] = []
        self.client = GatewayClient("http://gateway", "key", 0.0, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/traces":
            (resource,) = ExportTraceServiceRequest.FromString(request.content).resource_spans
            self.given += [span.trace_id.hex() for span in resource.scope_spans[0].spans]
            return httpx.Response(200)
        name = request.url.path.rpartition("/")[2]
        if name not in self.newest:
            return httpx.Response(self.looking, json={"error": {"message": f"no rollout {name}"}})
        return httpx.Response(200, json={"rollout_id": name, "attempt": self.newest[name], "state": "ended"})


def asked(text: str, **changes: Any) -> Asked:
    fields: dict[str, Any] = {"attempt": None, "name": "thumb", "value": 1.0, "comment": None}
    fields |= {"data_dir": Path("none"), "reads_log": False}
    return Asked(rollout=text, **fields | changes)


@pytest.mark.parametrize(
    ("text", "attempt", "newest", "expected"),
    [(s.A, None, 2, 2), (s.A, 1, 2, 1), (f"{s.A}0001", None, 2, 1), (f"{s.A}0000", 2, 2, 2), (s.A, None, 0, 0)],
)
def test_a_rollout_id_means_its_newest_attempt(text: str, attempt: int | None, newest: int, expected: int) -> None:
    gateway = Gateway({s.A: newest})
    first, *_ = give_feedback(asked(text, attempt=attempt), gateway.client, lambda _: None)
    assert gateway.given == [f"{s.A}{expected:04x}"]
    assert first == f"thumb = 1 for rollout {s.A}, attempt {expected}"


@pytest.mark.parametrize(
    ("known", "attempt", "said"),
    [
        ({}, None, f"gateway does not know rollout {s.A}.*leyden rollouts"),
        ({s.A: 1}, 2, "has no attempt 2; its newest is 1"),
    ],
)
def test_an_unknown_rollout_or_attempt_is_an_error_and_nothing_is_sent(
    known: dict[str, int], attempt: int | None, said: str
) -> None:
    gateway = Gateway(known)
    with pytest.raises(StackError, match=said):
        list(give_feedback(asked(s.A, attempt=attempt), gateway.client, lambda _: None))
    assert gateway.given == []


@pytest.mark.parametrize(
    ("text", "attempt", "looking", "expected", "why"),
    [
        (s.A, None, 403, 0, "the key may not look at it"),
        (f"{s.A}0001", None, 403, 1, "the key may not look at it"),
        (s.A, 2, 403, 2, "the key may not look at it"),
        (f"{s.A}0001", None, 404, 1, "the gateway does not know the rollout, or no longer"),
        (s.A, 2, 404, 2, "the gateway does not know the rollout, or no longer"),
    ],
)
def test_what_cannot_be_checked_is_sent_with_a_warning(
    text: str, attempt: int | None, looking: int, expected: int, why: str
) -> None:
    gateway = Gateway({}, looking)
    first, warning, note = give_feedback(asked(text, attempt=attempt), gateway.client, lambda _: None)
    assert gateway.given == [f"{s.A}{expected:04x}"]
    assert first == f"thumb = 1 for rollout {s.A}, attempt {expected}"
    assert warning.startswith("warning: ") and warning.endswith(f"was not checked: {why}")
    assert "KAFKA_BOOTSTRAP_SERVERS" in note


def a_log(monkeypatch: pytest.MonkeyPatch, events: Sequence[Event], error: BaseException | None = None) -> None:
    """Kafka is named, and has these events; every read of it raises `error`."""

    class NamedLog(s.FakeLog):
        def __init__(self, *_: object) -> None:
            super().__init__(events)

        async def __aenter__(self) -> Self:
            if error is not None:
                raise error
            return self

        async def __aexit__(self, *_: object) -> None:
            """Nothing is open."""

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setattr("leyden.cli.feedback.Log", NamedLog)


@pytest.mark.parametrize(
    "error", [KafkaError("gone"), Retry("a claim"), OSError("no file"), StackError("no topics")], ids=repr
)
def test_a_reward_is_sent_before_the_log_is_read_and_its_errors_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    a_log(monkeypatch, [], error)
    gateway = Gateway({s.A: 0})
    _, note = give_feedback(asked(s.A, reads_log=True, data_dir=tmp_path), gateway.client, lambda _: None)
    assert note == f"Whether it still counts is not known: {error}"
    assert len(gateway.given) == 1


def test_ctrl_c_while_the_log_is_read_comes_after_the_reward_was_sent_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_log(monkeypatch, [], KeyboardInterrupt())
    gateway = Gateway({s.A: 0})
    lines = give_feedback(asked(s.A, reads_log=True, data_dir=tmp_path), gateway.client, lambda _: None)
    assert next(lines) == f"thumb = 1 for rollout {s.A}, attempt 0"
    with pytest.raises(KeyboardInterrupt):
        next(lines)
    assert len(gateway.given) == 1


@pytest.mark.parametrize("looking", [403, 404])
def test_the_log_says_what_the_gateway_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looking: int) -> None:
    a_log(monkeypatch, [s.started(s.A).model_copy(update={"attempt": 1})])
    gateway = Gateway({}, looking)
    [first] = give_feedback(asked(s.A, reads_log=True, data_dir=tmp_path), gateway.client, lambda _: None)
    assert first.endswith("attempt 1")
    for text, said in ((f"{s.A}0002", "has no attempt 2; its newest is 1"), (s.B, "[Tt]he log (knows|does not know)")):
        with pytest.raises(StackError, match=said):
            list(give_feedback(asked(text, reads_log=True, data_dir=tmp_path), gateway.client, lambda _: None))
    assert gateway.given == [f"{s.A}0001"]


def test_what_the_log_alone_knows_is_said_where_it_cannot_be_read(tmp_path: Path) -> None:
    gateway = Gateway({s.A: 0})
    _, note = give_feedback(asked(s.A), gateway.client, lambda _: None)
    assert "Whether it still counts is not known" in note and "KAFKA_BOOTSTRAP_SERVERS" in note
    _, note = give_feedback(asked(s.A, reads_log=True, data_dir=tmp_path / "none"), gateway.client, lambda _: None)
    assert "Whether it still counts is not known" in note and str(tmp_path / "none") in note
    assert len(gateway.given) == 2


def test_the_log_is_read_if_it_is_the_gateways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "LEYDEN_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    assert reads_log(None, tmp_path)
    assert not reads_log("http://elsewhere", tmp_path)
    monkeypatch.setenv("LEYDEN_GATEWAY_URL", "http://elsewhere")
    assert not reads_log(None, tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert reads_log("http://elsewhere", tmp_path)


def test_the_log_of_the_stack_that_leyden_env_names_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    folder = DataFolder(tmp_path)
    folder.claim()
    folder.write_state(StackState(phase="up", gateway_url="http://127.0.0.1:8080"))
    assert not reads_log("http://127.0.0.1:8080", tmp_path), "it does not run: another gateway has its port"
    with folder.lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setenv("LEYDEN_GATEWAY_URL", "http://127.0.0.1:8080")
        assert reads_log(None, tmp_path)
        assert reads_log("http://127.0.0.1:8080/", tmp_path)
        assert not reads_log("http://127.0.0.1:8081", tmp_path)


def a_failure(rollout_id: str, **changes: Any) -> RolloutEnded:
    return s.ended(rollout_id, []).model_copy(update={"status": "failed", **changes})


LATER = T0 + timedelta(hours=3)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([s.started(s.A)], None),
        ([s.started(s.A), s.ended(s.A, [])], None),
        ([s.ended(s.A, []), s.completed(s.A, [])], "`late_horizon_s`.*is 0"),
        ([s.ended(s.A, []), s.completed(s.A, [], late_horizon_s=3600.0)], r"ended [\d,]+ s ago.*count for 3,600 s"),
        ([s.ended(s.A, []), s.completed(s.A, [], late_horizon_s=20_000.0)], None),
        ([a_failure(s.A), s.completed(s.A, [])], "attempt 0 failed; failed rollouts"),
        ([a_failure(s.A, final=False)], "attempt 0 failed and was retried"),
    ],
)
async def test_a_reward_without_effect_has_its_reason(events: list[Event], said: str | None) -> None:
    found = without_effect(await read_facts(s.FakeLog(events), s.A), 0, LATER)
    assert (found is None) if said is None else re.search(said, found or "")


@given(
    horizon_s=st.sampled_from([0.0, 1.0, 60.0, 3600.0]),
    late_s=st.floats(0.5, 7200.0),
    failed=st.booleans(),
)
async def test_what_is_said_to_have_an_effect_is_what_credit_uses(
    horizon_s: float, late_s: float, failed: bool
) -> None:
    """Of a rollout whose rewards are complete."""
    failure = FailureClass.AGENT_EXCEPTION if failed else None
    first = one_rollout(0, None if failed else 1.0, size=1, horizon_s=0.0 if failed else horizon_s, failure=failure)
    [ended] = [event for event in first if isinstance(event, RolloutEnded)]
    events = [*first, *late_rewards(first, 2.0, after_s=late_s)]
    attempt = select_rewards(assemble([Evidence(event, "origin") for event in events]))  # type: ignore[arg-type]
    counts = attempt.completed is not None and attempt.completed.revision == 1
    facts = await read_facts(s.FakeLog(first), rollout(0))
    said = without_effect(facts, 0, ended.event_time + timedelta(seconds=late_s))
    assert (said is None) == counts
