"""What an agent says about its run, and where it says it: streams, threads, processes."""

import asyncio
import json
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

import client_agents
import leyden
from client_support import FakeGateway, attributes, wait_until
from leyden.client import NoRolloutError
from leyden.client.spans import MAX_TEXT


def the_end(gateway: FakeGateway) -> tuple[str, dict[str, Any]]:
    [(trace_id, [body])] = gateway.ends.items()
    return trace_id, body


def by_name(gateway: FakeGateway, trace_id: str) -> dict[str, Any]:
    return {span.name: span for span in gateway.spans_of(trace_id)}


def test_messages_objects_and_exceptions_are_spans_at_the_current_one(connected: FakeGateway) -> None:
    with leyden.Rollout("solver"), leyden.operation("plan"):
        leyden.emit_message("hello", turn=2)
        leyden.emit_object({"steps": [1, 2]}, name="plan")
        try:
            raise KeyError("page")
        except KeyError as error:
            leyden.emit_exception(error, handled="by asking again")
    trace_id, body = the_end(connected)
    assert body == {"status": "succeeded", "span_count": 5}
    spans = by_name(connected, trace_id)
    assert attributes(spans["leyden.message"]) == {"leyden.message": "hello", "leyden.annotation.turn": 2}
    assert json.loads(attributes(spans["leyden.object"])["leyden.object"]) == {"steps": [1, 2]}
    failure = spans["leyden.exception"]
    assert (failure.status.code, failure.status.message) == (2, "'page'")
    assert attributes(failure)["error.type"] == "KeyError"
    assert "test_client_notes" in attributes(failure)["exception.stacktrace"]
    assert {spans[name].parent_span_id for name in spans if name.startswith("leyden.")} == {spans["plan"].span_id}


def test_a_long_text_is_cut_and_says_so(connected: FakeGateway) -> None:
    with leyden.Rollout():
        leyden.emit_message("x" * (MAX_TEXT + 10))
    message = attributes(by_name(connected, the_end(connected)[0])["leyden.message"])
    assert (len(message["leyden.message"]), message["leyden.uncut_length"]) == (MAX_TEXT, MAX_TEXT + 10)


def test_annotations_are_on_the_current_span_or_on_the_rollout(connected: FakeGateway) -> None:
    with leyden.Rollout("solver"), leyden.operation("plan", depth=3) as step:
        leyden.annotate(cost=0.5, tags=["a"], none=None)
        leyden.annotate(rollout=True, difficulty="hard")
        step.annotate(late=True)
    spans = by_name(connected, the_end(connected)[0])
    plan, root = attributes(spans["plan"]), attributes(spans["invoke_agent solver"])
    assert {key: plan[f"leyden.annotation.{key}"] for key in ("depth", "cost", "tags", "late")} == {
        "depth": 3, "cost": 0.5, "tags": '["a"]', "late": True,
    }  # fmt: skip
    assert root["leyden.annotation.difficulty"] == "hard"


def test_outside_of_a_rollout_only_a_reward_is_an_error(connected: FakeGateway) -> None:
    leyden.emit_message("to nobody")
    leyden.emit_object({})
    leyden.emit_exception(ValueError())
    leyden.annotate(x=1)
    with pytest.raises(NoRolloutError):
        leyden.emit_reward(1.0)
    assert leyden.flush(5)
    assert connected.spans == []


def test_operations_keep_what_they_take_and_give(connected: FakeGateway) -> None:
    class Agent:
        @leyden.operation
        def look(self, where: str, deep: bool = False) -> list[str]:
            return [where]

        @leyden.operation("walk")
        async def go(self) -> None:
            raise OSError("wall")

    with leyden.Rollout():
        assert Agent().look("up", deep=True) == ["up"]
        with pytest.raises(OSError, match="wall"):
            asyncio.run(Agent().go())
    spans = by_name(connected, the_end(connected)[0])
    look = attributes(spans["look"])
    assert json.loads(look["leyden.operation.arguments"]) == {"where": "up", "deep": True}
    assert look["leyden.operation.result"] == '["up"]'
    assert attributes(spans["walk"])["error.type"] == "OSError"


def test_a_streaming_agent_is_a_rollout_until_its_last_word(connected: FakeGateway) -> None:
    @leyden.rollout
    def agent() -> Iterator[str]:
        yield "four"
        leyden.emit_reward(1.0)
        yield "ty"

    said = agent()
    assert next(said) == "four"
    assert connected.ends == {}
    with pytest.raises(NoRolloutError):
        leyden.current_rollout()
    assert list(said) == ["ty"]
    assert the_end(connected)[1] == {"status": "succeeded", "span_count": 2, "output": "fourty"}


async def test_async_streams_side_by_side_keep_their_rollouts_apart(connected: FakeGateway) -> None:
    @leyden.rollout(name="talker")
    async def agent(number: int) -> AsyncIterator[int]:
        mine = leyden.current_rollout().trace_id
        for _ in range(2):
            await asyncio.sleep(0.01)
            assert leyden.current_rollout().trace_id == mine
            leyden.emit_reward(number)
            yield number

    async def read(number: int) -> list[int]:
        return [item async for item in agent(number)]

    assert await asyncio.gather(*(read(n) for n in range(4))) == [[n, n] for n in range(4)]
    assert sorted(body["output"] for [body] in connected.ends.values()) == [[n, n] for n in range(4)]
    assert all(body["span_count"] == 3 for [body] in connected.ends.values())


async def test_a_failing_stream_fails_its_rollout(connected: FakeGateway) -> None:
    @leyden.rollout
    async def agent() -> AsyncIterator[str]:
        yield "a"
        raise KeyError("page")

    with pytest.raises(KeyError):
        [item async for item in agent()]
    assert the_end(connected)[1]["failure"]["failure_class"] == "agent_exception"


def test_threads_work_in_the_rollout_they_were_given(connected: FakeGateway) -> None:
    def work(number: int) -> str:
        leyden.emit_reward(number)
        return leyden.current_rollout().trace_id

    with leyden.Rollout() as rollout, ThreadPoolExecutor(4) as pool:
        assert rollout.claim is not None
        traces = set(pool.map(leyden.carry(work), range(8)))
        assert traces == {rollout.claim.trace_id}
        with pytest.raises(NoRolloutError):
            pool.submit(work, 1).result()
    assert the_end(connected)[1]["span_count"] == 9


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_work_in_the_rollout_they_were_given(connected: FakeGateway, method: str) -> None:
    with leyden.Rollout("parent") as rollout:
        assert rollout.claim is not None
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            assert set(pool.map(leyden.carry(client_agents.in_another_process), range(2))) == {rollout.claim.trace_id}
    trace_id, _ = the_end(connected)
    wait_until(lambda: len(connected.spans_of(trace_id)) == 5)
    spans = connected.spans_of(trace_id)
    [root] = [span for span in spans if span.name == "invoke_agent parent"]
    assert {span.parent_span_id for span in spans if span is not root} == {root.span_id}
    assert sorted(span.name for span in spans if span.name.startswith("work")) == ["work 0", "work 1"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_multiprocessing_sends_its_last_spans(connected: FakeGateway) -> None:
    with leyden.Rollout("parent"):
        child = multiprocessing.get_context("fork").Process(target=leyden.emit_message, args=("from the child",))
        child.start()
        child.join(30)
        assert child.exitcode == 0
    trace_id, _ = the_end(connected)
    wait_until(lambda: "leyden.message" in by_name(connected, trace_id))
