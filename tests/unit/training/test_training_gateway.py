"""What a training asks the gateway for, and what it says when an answer is missing."""

import httpx
import pytest

from leyden.training.gateway import GatewayClient, Queue, failure_text
from leyden.training.loop import look
from leyden.training.schedule import Schedule
from leyden.training.state import TrainState
from leyden.training.task_set import task_set

POLICIES = {"policies": [{"policy": "policy", "live_version": 3}]}
QUEUE = {"queued": 4, "running": 2, "ended": 1}
CALLS = {"calls": [{"trace_id": "a", "model": "policy", "seconds": 30.0}]}
FORBIDDEN = {"error": {"code": "forbidden", "message": "the key lacks the scope runner"}}


def client(answers: dict[str, httpx.Response | Exception]) -> GatewayClient:
    def answer(request: httpx.Request) -> httpx.Response:
        found = answers.get(request.url.path.rpartition("/")[2], httpx.Response(404))
        if isinstance(found, Exception):
            raise found
        return found

    return GatewayClient("http://gateway", "key", httpx.MockTransport(answer))


def new_state() -> TrainState:
    state = TrainState(Schedule(updates=1, groups_per_step=1), task_set([{"task_id": "a"}], holdout=0))
    state.model = state.model.model_copy(update={"calls": 1})
    return state


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        (httpx.Response(404), "the gateway answered 404: Not Found"),
        (httpx.Response(403, json=FORBIDDEN), "the gateway answered 403: the key lacks the scope runner"),
        (httpx.ReadTimeout("slow"), "the gateway does not answer (ReadTimeout)"),
    ],
)
async def test_a_training_goes_on_without_the_calls_that_it_only_shows(
    calls: httpx.Response | Exception, why: str
) -> None:
    answers = {"policies": httpx.Response(200, json=POLICIES), "queue": httpx.Response(200, json=QUEUE), "calls": calls}
    state, gateway = new_state(), client(answers)
    for _ in range(2):
        await look(gateway, state)
        state.note("something else")
    assert (state.version, state.queue, state.model.calls) == (3, Queue(4, 2, 1), 0)
    assert state.notes == [f"calls that wait for the model are not shown: {why}", "something else"]


async def test_a_gateway_that_tells_its_calls_has_them_shown() -> None:
    answers = {"policies": POLICIES, "queue": QUEUE, "calls": CALLS}
    state = new_state()
    await look(client({name: httpx.Response(200, json=document) for name, document in answers.items()}), state)
    assert (state.model.oldest, state.notes) == ("a", [])


async def test_a_refusal_of_the_queue_is_told_with_its_status_and_message() -> None:
    gateway = client({"policies": httpx.Response(200, json=POLICIES), "queue": httpx.Response(403, json=FORBIDDEN)})
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await look(gateway, new_state())
    assert failure_text(refused.value) == "the gateway answered 403: the key lacks the scope runner"
