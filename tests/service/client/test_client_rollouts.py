"""Rollouts that an agent starts of its own accord: spans, rewards, tools and ends, as the gateway gets them."""

import asyncio
import json
import logging
import os
import signal
import threading
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.responses import JSONResponse

import leyden
from client_support import KEY, FakeGateway, attributes, wait_until
from leyden.client import ConfigurationError, GatewayRefusedError, NoRolloutError
from leyden.client.session import close


def the_end(gateway: FakeGateway) -> tuple[str, dict[str, object]]:
    """The only end that was told, and its trace id."""
    [(trace_id, bodies)] = gateway.ends.items()
    assert len(bodies) == 1
    return trace_id, bodies[0]


def test_a_decorated_agent_is_a_rollout_with_its_output_and_counted_spans(connected: FakeGateway) -> None:
    @leyden.rollout(name="solver")
    def solve(question: str) -> dict[str, str]:
        current = leyden.current_rollout()
        assert current.base_url.endswith(f"/rollouts/{current.trace_id}/v1")
        assert current.api_key.startswith("lrk-")
        leyden.emit_reward(0.5, "style", "short")
        return {"answer": question.upper()}

    assert solve("why") == {"answer": "WHY"}
    trace_id, body = the_end(connected)
    assert body == {"status": "succeeded", "span_count": 2, "output": {"answer": "WHY"}}
    reward, root = connected.spans_of(trace_id)
    assert root.name == "invoke_agent solver"
    assert root.parent_span_id.hex() == "00000000000000ff"
    assert attributes(root)["gen_ai.agent.name"] == "solver"
    assert attributes(root)["leyden.rollout_id"] == trace_id[:28]
    assert reward.parent_span_id == root.span_id
    assert reward.start_time_unix_nano == reward.end_time_unix_nano
    assert reward.name == "gen_ai.evaluation.result"
    assert attributes(reward) == {
        "gen_ai.evaluation.name": "style",
        "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.explanation": "short",
    }
    assert connected.keys == {f"Bearer {KEY}"}


async def test_concurrent_async_agents_keep_their_rollouts_apart(connected: FakeGateway) -> None:
    @leyden.rollout
    async def agent(number: int) -> str:
        mine = leyden.current_rollout().trace_id
        for _ in range(3):
            await asyncio.sleep(0.01)
            leyden.emit_reward(number)
        assert leyden.current_rollout().trace_id == mine
        return mine

    traces = await asyncio.gather(*(agent(number) for number in range(8)))
    assert len(set(traces)) == 8
    for number, trace_id in enumerate(traces):
        assert connected.ends[trace_id] == [{"status": "succeeded", "span_count": 4, "output": trace_id}]
        values = [attributes(span).get("gen_ai.evaluation.score.value") for span in connected.spans_of(trace_id)]
        assert values.count(float(number)) == 3


def test_a_rollout_within_a_rollout_is_a_span_of_the_outer_one(connected: FakeGateway) -> None:
    @leyden.rollout
    def helper() -> int:
        return 7

    with leyden.Rollout("outer", group_id="g", group_size=4) as rollout:
        rollout.output = helper()
    assert connected.starts == [{"group_id": "g", "group_size": 4}]
    trace_id, body = the_end(connected)
    assert body == {"status": "succeeded", "span_count": 2, "output": 7}
    inner, outer = connected.spans_of(trace_id)
    assert (inner.name, inner.parent_span_id) == ("invoke_agent helper", outer.span_id)


def test_an_exception_fails_the_rollout_and_goes_on(connected: FakeGateway) -> None:
    with pytest.raises(ZeroDivisionError), leyden.Rollout("solver"):
        _ = 1 / 0
    trace_id, body = the_end(connected)
    failure = body["failure"]
    assert isinstance(failure, dict)
    assert (failure["failure_class"], failure["message"]) == ("agent_exception", "ZeroDivisionError: division by zero")
    [root] = connected.spans_of(trace_id)
    assert root.status.code == 2
    assert attributes(root)["error.type"] == "ZeroDivisionError"
    with pytest.raises(NoRolloutError):
        leyden.current_rollout()


def test_tools_leave_their_arguments_results_and_errors(connected: FakeGateway) -> None:
    @leyden.tool
    def add(a: int, b: int = 2) -> int:
        return a + b

    @leyden.tool("look_up")
    async def search(query: str) -> list[str]:
        raise LookupError(query)

    with leyden.Rollout("solver"):
        assert add(1, b=3) == 4
        with pytest.raises(LookupError):
            asyncio.run(search("x"))
        with leyden.tool("shell", arguments={"cmd": "ls"}, parameters={"type": "object"}, call_id="c1") as call:
            call.result = {"exit_code": 0}
    trace_id, _ = the_end(connected)
    added, searched, shell, root = connected.spans_of(trace_id)
    assert added.name == "execute_tool add"
    assert added.parent_span_id == root.span_id
    assert json.loads(attributes(added)["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 3}
    assert attributes(added)["gen_ai.tool.call.result"] == "4"
    assert attributes(added)["gen_ai.operation.name"] == "execute_tool"
    assert searched.name == "execute_tool look_up"
    assert (searched.status.code, searched.status.message) == (2, "x")
    assert attributes(searched)["error.type"] == "LookupError"
    assert attributes(shell)["gen_ai.tool.call.id"] == "c1"
    assert json.loads(attributes(shell)["leyden.tool.parameters_schema"]) == {"type": "object"}


def test_a_reward_outside_of_a_rollout_is_an_error(connected: FakeGateway) -> None:
    with pytest.raises(NoRolloutError, match="outcome"):
        leyden.emit_reward(1.0)
    with leyden.Rollout(), pytest.raises(ValueError, match="finite"):
        leyden.emit_reward(float("nan"))


def test_a_tool_outside_of_a_rollout_just_works_and_is_not_sent(connected: FakeGateway) -> None:
    @leyden.tool
    def add(a: int) -> int:
        return a + 1

    assert add(1) == 2
    assert leyden.flush(5)
    assert connected.spans == []


def test_spans_of_other_instrumentations_in_a_rollout_are_sent_and_counted(gateway: FakeGateway) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    leyden.init(gateway.url, KEY, tracer_provider=provider)
    framework = provider.get_tracer("some.framework")
    with framework.start_as_current_span("before"), leyden.Rollout(), framework.start_as_current_span("chat m"):
        pass
    trace_id, body = the_end(gateway)
    assert body["span_count"] == 2
    assert (
        {span.name for span in gateway.spans}
        == {"chat m", "invoke_agent agent"}
        == {span.name for span in gateway.spans_of(trace_id)}
    )
    close()


def test_a_long_rollout_keeps_its_lease(connected: FakeGateway) -> None:
    connected.lease_s = 0.3
    with leyden.Rollout():
        wait_until(lambda: len(connected.heartbeats) >= 3)
    the_end(connected)
    with leyden.Rollout():  # as long again as it took to keep the first one's lease
        wait_until(lambda: len(set(connected.heartbeats)) == 2 and len(connected.heartbeats) >= 6)
    assert connected.refused_heartbeats == [], "an attempt that has ended needs no lease"


def test_an_agent_runs_unrecorded_when_the_gateway_is_away(
    gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.stop()
    provider = TracerProvider(shutdown_on_exit=False)
    leyden.init(gateway.url, KEY, tracer_provider=provider, start_timeout_s=0.3)

    @leyden.rollout
    def agent() -> str:
        leyden.emit_reward(1.0)
        with leyden.tool("t"):
            return leyden.current_rollout().base_url

    began = time.monotonic()
    with caplog.at_level(logging.ERROR, "leyden.client"):
        assert agent() == f"{gateway.url}/v1"
    assert time.monotonic() - began < 3
    assert "not recorded" in caplog.text
    close()


def test_a_wrong_key_is_seen(connected: FakeGateway) -> None:
    connected.answers["/rollouts"] = [JSONResponse({"error": {"message": "unknown key"}}, 401)]
    with pytest.raises(GatewayRefusedError, match="unknown key"), leyden.Rollout():
        pass


def test_a_span_that_was_lost_leaves_the_count_unknown(connected: FakeGateway) -> None:
    connected.answers["/traces"] = [JSONResponse({}, 400)]
    with leyden.Rollout():
        pass
    assert the_end(connected)[1] == {"status": "succeeded", "span_count": None}


def test_spans_and_the_end_survive_a_restart_of_the_gateway(connected: FakeGateway) -> None:
    with leyden.Rollout():
        connected.stop()
        restart = threading.Timer(1.0, connected.start)
        restart.start()
    restart.join()
    wait_until(lambda: bool(connected.ends), 20)
    trace_id, body = the_end(connected)
    assert body == {"status": "succeeded", "span_count": 1}
    assert len(connected.spans_of(trace_id)) == 1


def test_without_a_gateway_init_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYDEN_GATEWAY_URL", raising=False)
    with pytest.raises(ConfigurationError, match="LEYDEN_GATEWAY_URL"):
        leyden.init()


def test_init_reads_the_environment_and_is_idempotent(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_GATEWAY_URL", gateway.url + "/")
    monkeypatch.setenv("LEYDEN_API_KEY", KEY)
    session = leyden.init()
    assert leyden.init(gateway.url, KEY) is session
    assert isinstance(trace.get_tracer_provider(), TracerProvider)
    with leyden.Rollout():
        pass
    assert the_end(gateway)[1]["span_count"] == 1
    close()


def test_init_again_without_arguments_keeps_the_gateway_and_with_others_changes_it(gateway: FakeGateway) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    first = leyden.init(gateway.url, "other", tracer_provider=provider)
    assert leyden.init() is first
    second = leyden.init(gateway.url, KEY, tracer_provider=provider)
    assert second is not first
    with leyden.Rollout():
        pass
    assert the_end(gateway)[1]["span_count"] == 1
    assert gateway.keys == {f"Bearer {KEY}"}
    assert leyden.stats().sent == 1
    close()


async def test_a_plain_rollout_works_within_a_running_loop(connected: FakeGateway) -> None:
    with leyden.Rollout() as rollout:
        rollout.output = await asyncio.sleep(0, "fine")
    assert (await asyncio.to_thread(the_end, connected))[1]["output"] == "fine"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_and_threads_of_its_own(connected: FakeGateway) -> None:
    with leyden.Rollout("parent"):
        pass
    child = os.fork()
    if child == 0:
        try:
            with leyden.Rollout("child"):
                pass
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        time.sleep(0.05)
    assert sorted(span.name for span in connected.spans) == ["invoke_agent child", "invoke_agent parent"]
    assert [bodies[0]["span_count"] for bodies in connected.ends.values()] == [1, 1]
