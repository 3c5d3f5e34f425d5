"""A gateway on fakes in a thread of its own, for fuzzers that call it over HTTP and know nothing of asyncio."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from leyden.events import Task
from leyden.events.codec import decode, encode
from leyden.gateway.core.rollouts import RolloutSpec, Running
from leyden.kafka import Outgoing
from service.gateway.gateway_fakes import REF, START, Bench, bench

MANY = 4
"""The most choices that the engine gives, however many a fuzzer asks for."""


@contextmanager
def fuzzed_gateway() -> Iterator[Bench]:
    """A gateway with one rollout under way and an engine that answers whatever it is asked."""
    started: Future[tuple[Bench, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(started)))
    thread.start()
    gate, loop, stop = started.result(timeout=30)
    try:
        yield gate
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
    assert not thread.is_alive()


async def _serve(started: "Future[tuple[Bench, asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    stop = asyncio.Event()
    try:
        async with bench() as gate:
            gate.engine.reply = _patient(gate)
            _encode_what_is_logged(gate)
            spec = RolloutSpec(task=Task.model_validate({"task_id": "t", "mode": "train"}), group_id="g")
            await gate.store.begin(Running(REF, spec, START), START)
            started.set_result((gate, asyncio.get_running_loop(), stop))
            await stop.wait()
    except BaseException as error:
        if not started.done():
            started.set_exception(error)
        raise


def _encode_what_is_logged(gate: Bench) -> None:
    """Have the log fail where Kafka's producer would: on an event that cannot be encoded."""
    publish = gate.log.publish_all

    async def publish_all(outgoing: Sequence[Outgoing]) -> None:
        for one in outgoing:
            assert not isinstance(one.event, bytes)
            decode(one.topic, encode(one.event))
        await publish(outgoing)

    gate.log.publish_all = publish_all  # type: ignore[method-assign]


def _patient(gate: Bench) -> Any:
    """An engine that never minds what it is asked: what it would refuse is not what is tested."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        count = body.get("n")
        plain = body | {
            "n": min(max(count, 1), MANY) if isinstance(count, int) else 1,
            "stream": body.get("stream") is True,
        }
        return await gate.engine.default(request, plain)

    return reply
