"""`leyden feedback`: which attempt it is for, unknown rollouts, and rewards that change nothing."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from leyden.stack.errors import StackError


class Gateway:
    """Knows the newest attempts of some rollouts, and counts the attempts that it is sent spans of."""

    def __init__(self, newest: dict[str, int], refuses: int = 0) -> None:
        self.newest, self.refuses = newest, refuses
        self.given: list[str] = []
        self.client = GatewayClient("http://gateway", "key", 0.0, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.refuses:
            return httpx.Response(self.refuses, json={"error": {"message": "no"}})
        if request.url.path == "/v1/traces":
            (resource,) = ExportTraceServiceRequest.FromString(request.content).resource_spans
            self.given += [span.trace_id.hex() for span in resource.scope_spans[0].spans]
            return httpx.Response(200)
        name = request.url.path.rpartition("/")[2]
        if name not in self.newest:
            return httpx.Response(404, json={"error": {"message": f"no rollout {name}"}})
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
        give_feedback(asked(s.A, attempt=attempt), gateway.client, lambda _: None)
    assert gateway.given == []


def test_what_the_log_alone_knows_is_said_where_it_cannot_be_read(tmp_path: Path) -> None:
    gateway = Gateway({s.A: 0})
    _, note = give_feedback(asked(s.A), gateway.client, lambda _: None)
    assert "Whether it still counts is not known here" in note and "KAFKA_BOOTSTRAP_SERVERS" in note
    _, note = give_feedback(asked(s.A, reads_log=True, data_dir=tmp_path / "none"), gateway.client, lambda _: None)
    assert "Whether it still counts is not known" in note and str(tmp_path / "none") in note
    assert len(gateway.given) == 2


def test_the_log_is_read_if_it_is_the_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "LEYDEN_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    assert reads_log(None)
    assert not reads_log("http://elsewhere")
    monkeypatch.setenv("LEYDEN_GATEWAY_URL", "http://elsewhere")
    assert not reads_log(None)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert reads_log("http://elsewhere")


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
