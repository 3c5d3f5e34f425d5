"""Fakes around the gateway: the log in memory, and the gateway itself on a real port with a scripted engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette

from fakes import FakePublisher
from http_servers import served
from leyden.clock import ManualClock
from leyden.events import ModelCallRecorded, PolicyServed
from leyden.gateway.adapters.engines import AiohttpEngines
from leyden.gateway.app import Gateway
from leyden.gateway.core.upstreams import Upstreams
from leyden.gateway.http.operations import Operation
from leyden.gateway.http.protocol import StampedProtocol
from leyden.gateway.ports import (
    EarlierCalls,
)
from leyden.gateway.settings import GatewaySettings
from leyden.ids import AttemptRef
from leyden.kafka import Delivered, Retry
from service.gateway.gateway_engine_fake import ScriptedEngine, engine_server
from service.gateway.gateway_kept_fake import MemoryKeptResponses
from service.gateway.gateway_rates_fake import MemoryRates
from service.gateway.gateway_store_fake import MemoryStore

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "a secret of the tests"
API_KEY = "key-of-the-tests"
REF = AttemptRef("1e7de" + "0" * 22 + "1", 0)


class FakeLog(FakePublisher):
    """`Log` in memory: a publisher that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.up = True

    def must_be_up(self) -> None:
        if not self.up:
            raise Retry("down")

    @property
    def calls(self) -> list[ModelCallRecorded]:
        return self.of(ModelCallRecorded)


def settings(**changes: Any) -> GatewaySettings:
    knobs: dict[str, Any] = {
        "secret": SecretStr(SECRET),
        "api_keys": SecretStr(f"other,{API_KEY}"),
        "claim_poll_s": 0.01,
    }
    return GatewaySettings(**(knobs | changes))


@dataclass
class Bench:
    """A gateway on a port, and everything around it."""

    url: str
    gateway: Gateway
    log: FakeLog
    store: MemoryStore
    engine: ScriptedEngine
    clock: ManualClock
    rates: MemoryRates

    async def serve(self, version: int, replica: str = "r0", endpoint: str | None = None) -> None:
        """A replica reports its version."""
        served = PolicyServed(
            event_id=f"{replica}{version}", event_time=START, producer="policy", policy="policy", version=version,
            replica=replica, endpoint=endpoint or self.engine.url, model="served-name", engine="vllm",
        )  # fmt: skip
        await self.gateway.models.on_models(
            [Delivered(served, "models.v1", f"policy/{replica}", 0, 0, "models.v1/0/0")]
        )

    async def drain_tasks(self) -> None:
        """What consuming tasks.v1 does, duplicates included."""
        tasks = [Delivered(o.event, o.topic, o.key, 0, i, f"t/0/{i}") for i, o in enumerate(self.log.published)]
        await self.gateway.tasks.on_tasks([t for t in tasks if t.topic == "tasks.v1"])  # type: ignore[misc]


@asynccontextmanager
async def asgi_server(app: Starlette, port: int = 0) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=StampedProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
    )
    async with served(config) as url:
        yield url


def operations() -> list[Operation]:
    """Every route that a gateway declares."""
    return Gateway(
        settings=settings(),
        store=MemoryStore(),
        engines=AiohttpEngines(4.0, 100, 1_000_000),
        log=FakeLog(),
        clock=ManualClock(START),
        rates=MemoryRates(),
        kept=MemoryKeptResponses(),
    ).operations


@asynccontextmanager
async def bench(
    upstreams: Upstreams | None = None,
    earlier: EarlierCalls | None = None,
    store: MemoryStore | None = None,
    kept: MemoryKeptResponses | None = None,
    live: bool = True,
    **changes: Any,
) -> AsyncIterator[Bench]:
    """A gateway that serves `policy@3` from one scripted engine (where `live`), and passes on to `upstreams`."""
    engine, log, store, clock = ScriptedEngine(), FakeLog(), store or MemoryStore(), ManualClock(START)
    engines = AiohttpEngines(4.0, 100, changes.get("max_reply_bytes", 1_000_000))
    await engines.open()
    rates = MemoryRates()
    gateway = Gateway(
        settings=settings(**changes),
        store=store,
        engines=engines,
        log=log,
        clock=clock,
        rates=rates,
        kept=kept or MemoryKeptResponses(),
        upstreams=upstreams,
        earlier=earlier,
    )
    try:
        async with (
            engine_server(engine),
            asgi_server(Starlette(routes=gateway.routes()), changes.get("port", 0)) as url,
        ):
            made = Bench(url, gateway, log, store, engine, clock, rates)
            if live:
                await made.serve(3)
            yield made
            engine.hold.set()
            log.acknowledging.set()
            await gateway.recorder.drain()
    finally:
        await engines.close()
