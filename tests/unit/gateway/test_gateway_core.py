"""The gateway's decisions: keys, binding, routing, sampling, streams, retries."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leyden.events import FailureClass, PolicyPromoted, PolicyServed, Sampling, unpack_ints
from leyden.gateway.adapters.engines import SseSplitter
from leyden.gateway.core.agents import MAX_LENGTH, Agent, agent_of
from leyden.gateway.core.faces.openai import show
from leyden.gateway.core.keys import AGENT_SCOPES, Caller, KeyRing, rollout_key
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.reply import ReplyParts
from leyden.gateway.core.request import Visible, bind, prepare
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, Running, ended, lease_until, lost
from leyden.gateway.core.routing import ModelName, RoutingTable
from leyden.gateway.core.sampling import NEUTRAL, ShapedSampling
from leyden.gateway.settings import GatewaySettings
from leyden.ids import AttemptRef, rollout_id_of

SECRET = b"0123456789abcdef"
REF = AttemptRef(rollout_id_of("t", 0), 2)
OTHER = AttemptRef(rollout_id_of("t", 1), 2)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Running(REF, RolloutSpec(group_id="g", max_attempts=4, timeout_s=100), NOW)


def test_a_rollout_key_names_its_attempt_and_no_other_secret_made_it() -> None:
    key = rollout_key(SECRET, REF)
    assert KeyRing([], SECRET, lambda: NOW).caller(f"Bearer {key}") == Caller(attempt=REF, scopes=AGENT_SCOPES)
    assert key.startswith(f"lrk-{REF.trace_id}-")
    forged = key.replace(REF.trace_id, OTHER.trace_id)
    for bad in (forged, key[:-1], rollout_key(b"another secret..", REF), "lrk-", f"lrk-{'0' * 32}-00", "ключ"):
        with pytest.raises(Refusal) as refused:
            KeyRing(["api"], SECRET, lambda: NOW).caller(f"Bearer {bad}")
        assert refused.value.status == 401
        assert bad not in str(refused.value)


def test_an_agent_is_named_by_its_header_before_its_baggage() -> None:
    baggage = ["a=1,leyden.agent.role=critic", "gen_ai.agent.name=third, leyden.agent.name = sec%20ond;meta=x"]
    assert agent_of("first", "planner", baggage) == Agent("first", "planner")
    assert agent_of(None, " ", baggage) == Agent("sec ond", "critic")
    assert agent_of(None, None, ["gen_ai.agent.name=third"]) == Agent("third", None)
    assert agent_of(None, None, []) == Agent()


def test_an_agents_name_is_a_short_printable_label() -> None:
    assert agent_of("x" * 5000, "a\x00\x1b[31mb", []) == Agent("x" * MAX_LENGTH, "a[31mb")
    assert agent_of(None, None, ["gen_ai.agent.name=a%0Ab"]) == Agent("ab")
    assert agent_of(None, None, ["k=v," * 5000 + "gen_ai.agent.name=late"]) == Agent()


@given(st.lists(st.text(max_size=40), max_size=4))
def test_no_baggage_is_too_odd_to_be_read(baggage: list[str]) -> None:
    agent_of(None, None, baggage)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic one", "one"])
def test_a_header_without_a_bearer_key_is_nobody(header: str | None) -> None:
    with pytest.raises(Refusal):
        KeyRing(["one", ""], SECRET, lambda: NOW).caller(*([] if header is None else [header]))
    assert KeyRing(["one", "two"], SECRET, lambda: NOW).caller("bearer two") == Caller()


def test_the_url_binds_before_the_key_and_the_key_before_the_trace() -> None:
    trace = f"00-{OTHER.trace_id}-{'ab' * 8}-01"
    assert bind(REF.trace_id, Caller(), trace).attempt == REF
    assert bind(REF.rollout_id, Caller(), None).attempt == AttemptRef(REF.rollout_id, 0)
    assert bind(None, Caller(attempt=REF), trace).attempt == REF
    assert bind(None, Caller(), trace).attempt == OTHER
    assert bind(None, Caller(), "rubbish").attempt is None
    bound = bind(REF.trace_id, Caller(attempt=REF), trace)
    assert (bound.trace_id, bound.parent_span_id, bound.traceparent) == (OTHER.trace_id, "ab" * 8, trace)
    with pytest.raises(Refusal, match="another rollout"):
        bind(OTHER.trace_id, Caller(attempt=REF), None)
    with pytest.raises(Refusal, match="neither"):
        bind("x", Caller(), None)


def served(version: int, replica: str, policy: str = "p") -> PolicyServed:
    return PolicyServed(
        event_id=f"{replica}{version}", event_time=NOW, producer="policy", policy=policy, version=version,
        replica=replica, endpoint=f"http://{replica}", model="m", engine="vllm",
    )  # fmt: skip


def test_the_newest_version_serves_and_the_least_loaded_of_it_first() -> None:
    table = RoutingTable()
    for event in (served(2, "c"), served(1, "a"), served(2, "b"), served(3, "a")):
        table.note_served(event)
    assert [r.replica for r in table.candidates(ModelName("p"), {})] == ["a", "b", "c"]
    assert [r.replica for r in table.candidates(ModelName("p", 2), {"p/b": 1})] == ["c", "b"]
    table.note_served(served(1, "a"))
    assert table.candidates(ModelName("p"), {})[0].replica == "b", (
        "the latest report of a replica wins, even a lower one"
    )
    (state,) = table.policies()
    assert (state.live_version, state.promoted_version) == (1, None)


def test_a_policy_that_is_promoted_and_not_yet_live_is_worth_waiting_for() -> None:
    table = RoutingTable()
    with pytest.raises(Refusal) as empty:
        table.candidates(ModelName("p"), {})
    table.note_served(served(1, "a", "other"))
    with pytest.raises(Refusal) as unknown:
        table.candidates(ModelName("p"), {})
    table.note_promoted(PolicyPromoted(event_id="e", event_time=NOW, producer="registry", policy="p", version=1))
    with pytest.raises(Refusal) as promoted:
        table.candidates(ModelName("p"), {})
    assert [refused.value.status for refused in (empty, unknown, promoted)] == [503, 404, 503]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("p", ("p", None)),
        ("p@12", ("p", 12)),
        ("a/b@c", ("a/b@c", None)),
        ("p@", ("p@", None)),
        ("@1", ("@1", None)),
        ("p@2147483647", ("p", 2**31 - 1)),
        ("p@" + "9" * 5000, ("p@" + "9" * 5000, None)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_model_names(text: str, name: tuple[str, int | None]) -> None:
    parsed = ModelName.parse(text)
    assert ((parsed.policy, parsed.version), str(parsed)) == (name, text)


def test_everything_that_changes_sampling_is_sent_explicitly() -> None:
    body = prepare({"model": "p", "temperature": None, "x": 1}, False, ShapedSampling.OVERRIDE).body
    assert body == {"model": "p", "x": 1, "return_token_ids": True, "logprobs": True} | NEUTRAL


def test_the_recorded_sampling_is_the_one_that_was_sent() -> None:
    request = {
        "model": "p", "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 1,
        "frequency_penalty": 2, "repetition_penalty": 1.5, "seed": 7, "max_tokens": 9, "max_completion_tokens": 8,
    }  # fmt: skip
    allowed = prepare(request, True, ShapedSampling.MARK).sampling.model_dump()
    assert allowed.pop("max_tokens") == 8
    shaping = ("top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
    assert allowed.pop("shaped_by") == list(shaping)
    assert allowed == {name: request[name] for name in allowed}
    overridden = prepare(request, True, ShapedSampling.OVERRIDE)
    assert overridden.overridden == shaping
    assert overridden.sampling == Sampling(temperature=0.5, seed=7, max_tokens=8)
    with pytest.raises(Refusal, match="top_p and top_k and min_p and presence_penalty"):
        prepare(request, True, ShapedSampling.REFUSE)


@given(
    st.lists(st.text(max_size=20), max_size=8),
    st.lists(st.integers(1, 9), max_size=40),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_are_found_however_the_bytes_are_cut(texts: list[str], cuts: list[int], newline: str) -> None:
    payloads = [orjson.dumps(text) for text in texts if text.isascii()]
    data = b"".join(b": ping\ndata: " + payload + b"\n\n" for payload in payloads)
    data = data.replace(b"\n", newline.encode())
    splitter, found, start = SseSplitter(), [], 0
    for cut in [*cuts, len(data)]:
        found += splitter.feed(data[start : start + cut])
        start += cut
    assert found == payloads


def probs(values: list[float]) -> dict[str, object]:
    return {"content": [{"token": "x", "logprob": value} for value in values]}


@given(st.lists(st.tuples(st.integers(0, 50_000), st.floats(-20, 0, width=32), st.integers(0, 2)), max_size=30))
def test_a_stream_gives_what_the_plain_reply_gives(tokens: list[tuple[int, float, int]]) -> None:
    plain, streamed = ReplyParts("c", 3), ReplyParts("c", 3)
    usage = {"prompt_tokens": 2, "completion_tokens": len(tokens)}
    choices = []
    for index in range(3):
        own = [(token, prob) for token, prob, where in tokens if where == index]
        message = {"role": "assistant", "content": "".join(str(token) for token, _ in own)}
        choices.append(
            {
                "index": index,
                "message": message,
                "token_ids": [t for t, _ in own],
                "logprobs": probs([p for _, p in own]),
                "finish_reason": "stop",
            }
        )
    plain.take({"prompt_token_ids": [1, 2], "choices": choices, "usage": usage})
    opening = {"role": "assistant", "content": ""}
    streamed.take({"prompt_token_ids": [1, 2], "choices": [{"index": i, "delta": opening} for i in range(3)]})
    for token, prob, index in tokens:
        choice = {"index": index, "delta": {"content": str(token)}, "token_ids": [token], "logprobs": probs([prob])}
        streamed.take({"choices": [choice]})
    assert not streamed.finished
    streamed.take({"choices": [{"index": i, "delta": {}, "finish_reason": "stop"} for i in range(3)]})
    streamed.take({"choices": [], "usage": usage})
    assert streamed.finished
    assert streamed.choices() == plain.choices()
    assert (streamed.prompt_token_ids, streamed.usage, streamed.torn) == ([1, 2], plain.usage, None)
    assert sum(len(unpack_ints(choice.token_ids)) for choice in streamed.choices()) == len(tokens)


def test_streamed_tool_calls_are_put_together_by_their_index() -> None:
    parts = ReplyParts("c", 1)
    for delta in (
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "mul", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}], "reasoning_content": "so"},
    ):
        parts.take({"choices": [{"index": 0, "delta": delta}]})
    message = parts.choices()[0].message
    assert message["reasoning_content"] == "so"
    assert message["tool_calls"] == [
        {"type": "function", "function": {"name": "add", "arguments": '{"x":1}'}, "id": "a"},
        {"type": "function", "function": {"name": "mul", "arguments": "{}"}, "id": "b"},
    ]


def test_a_reply_without_a_logprob_for_every_token_is_torn() -> None:
    parts = ReplyParts("c", 1)
    parts.take({"prompt_token_ids": [1], "choices": [{"index": 0, "token_ids": [1, 2], "logprobs": probs([-1.0])}]})
    assert parts.torn is not None and "2 token ids and 1 logprobs" in parts.torn
    assert "prompt_token_ids" in (ReplyParts("c", 1).torn or "")


def test_an_error_of_the_engine_is_shown_as_it_is() -> None:
    piece = {"error": {"message": "no"}}
    assert show(dict(piece), Visible(), "p@1", "chatcmpl-c") == piece


def test_the_same_end_is_the_same_event_whenever_it_is_decided() -> None:
    report = EndReport(status="failed", output={"a": 1, "b": 2})
    assert ended(RUNNING, report, NOW) == ended(RUNNING, report, NOW)
    assert report.fingerprint == EndReport(status="failed", output={"b": 2, "a": 1}).fingerprint
    assert report.fingerprint != EndReport(status="failed").fingerprint
    assert ended(RUNNING, report, NOW).event.final is False


def test_a_lost_attempt_says_why() -> None:
    early, late = lost(RUNNING, NOW + timedelta(seconds=99)), lost(RUNNING, NOW + timedelta(seconds=100))
    assert early.failure and early.failure.failure_class is FailureClass.RUNNER_LOST
    assert late.failure and late.failure.failure_class is FailureClass.TIMEOUT


def test_no_heartbeat_holds_an_attempt_longer_than_its_time_and_a_lease() -> None:
    def until(second: int) -> datetime | None:
        return lease_until(RUNNING, NOW + timedelta(seconds=second), 60)

    assert until(0) == NOW + timedelta(seconds=60)
    assert until(150) == NOW + timedelta(seconds=160)
    assert until(160) is None


def test_settings_say_what_is_missing_and_never_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYDEN_GATEWAY_SECRET", raising=False)
    with pytest.raises(ValidationError, match="secret"):
        GatewaySettings()
    monkeypatch.setenv("LEYDEN_GATEWAY_SECRET", "hunter2")
    monkeypatch.setenv("LEYDEN_GATEWAY_API_KEYS", " , ")
    with pytest.raises(ValidationError) as wrong:
        GatewaySettings()
    assert "LEYDEN_GATEWAY_SECRET needs at least 16" in str(wrong.value)
    assert "LEYDEN_GATEWAY_API_KEYS needs at least one" in str(wrong.value)
    assert "hunter2" not in str(wrong.value)
    monkeypatch.setenv("LEYDEN_GATEWAY_SECRET", "x" * 16)
    monkeypatch.setenv("LEYDEN_GATEWAY_API_KEYS", "a, b ,")
    knobs = GatewaySettings()
    assert (knobs.keys, knobs.url, knobs.shaped_sampling) == (["a", "b"], "http://127.0.0.1:8080", "override")
    assert "x" * 16 not in repr(knobs)
