"""The agent: keeps the newest promotion of its policy, and brings the engine to it, again whenever it falls back.

Level-triggered: promotions only set the goal; one loop compares it with what the engine says and acts. So a promotion
that was superseded is never loaded, and an engine that restarted with version 0 is brought back without an event.
"""

import asyncio
import logging
from collections.abc import Sequence

from leyden.clock import Clock
from leyden.events import Event, PolicyPromoted, PolicyServed
from leyden.events.codec import MODELS
from leyden.kafka.delivered import Delivered, Outgoing, Publisher, Retry
from leyden.policy.core import EngineReport, Place, announcement, newest_promotion, next_load
from leyden.policy.metrics import ENGINE_UP, LIVE_VERSION, SWAP_SECONDS, SWAPS
from leyden.policy.ports import Engine, EngineAwayError, EngineRefusedError

log = logging.getLogger(__name__)


class PolicyAgent:
    """One engine's agent."""

    def __init__(self, engine: Engine, publisher: Publisher, clock: Clock, place: Place) -> None:
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._place = place
        self._wanted: PolicyPromoted | None = None
        self._refused = ""
        self._announced: PolicyServed | None = None
        self._changed = asyncio.Event()

    async def on_models(self, batch: Sequence[Delivered[Event]]) -> None:
        """Take note of promotions; the loop acts on the newest."""
        self._wanted = newest_promotion((one.event for one in batch), self._place.policy) or self._wanted
        self._changed.set()

    async def follow(self, probe_s: float) -> None:
        """Bring the engine to the goal at each promotion, and look at it every `probe_s` seconds. Never returns."""
        away = ""
        while True:
            self._changed.clear()
            try:
                await self.converge()
                away = ""
            except (EngineAwayError, Retry) as problem:
                if str(problem) != away:
                    log.warning("not yet at the promoted version: %s", problem)
                away = str(problem)
            try:
                await asyncio.wait_for(self._changed.wait(), probe_s)
            except TimeoutError:
                continue

    async def converge(self) -> None:
        """One look, and what follows from it. Raises EngineAwayError, or Retry where Kafka is away."""
        try:
            report = await self._engine.report()
            if report.policy != self._place.policy:
                raise EngineAwayError(f"the engine serves {report.policy!r}, this agent is for {self._place.policy!r}")
        except EngineAwayError:
            ENGINE_UP.set(0)
            raise
        ENGINE_UP.set(1)
        report = await self._load(report)
        LIVE_VERSION.set(report.version)
        await self._announce(report)

    async def ready(self) -> str | None:
        """None once the engine's version has been announced."""
        return None if self._announced else f"the engine at {self._place.endpoint} has not been reached yet"

    async def _load(self, report: EngineReport) -> EngineReport:
        wanted = self._wanted
        load = next_load(report, wanted)
        if wanted is None or load is None or wanted.event_id == self._refused:
            return report
        try:
            with SWAP_SECONDS.time():
                report = await self._engine.load(report.policy, load.version, load.folder)
        except EngineRefusedError as problem:
            SWAPS.labels(result="refused").inc()
            log.error("%s@%d stays unserved: %s", report.policy, load.version, problem)  # noqa: TRY400  (said in full)
            self._refused = wanted.event_id
            return report
        except EngineAwayError:
            SWAPS.labels(result="away").inc()
            raise
        SWAPS.labels(result="done").inc()
        log.info("%s@%d is live", report.policy, report.version)
        return report

    async def _announce(self, report: EngineReport) -> None:
        event = announcement(report, self._wanted, self._place, self._clock.now())
        if self._announced and _same_news(event, self._announced):
            return
        await self._publisher.publish_all([Outgoing(MODELS, f"{report.policy}/{self._place.replica}", event)])
        self._announced = event


def _same_news(one: PolicyServed, other: PolicyServed) -> bool:
    return (one.policy, one.version, one.model, one.engine) == (other.policy, other.version, other.model, other.engine)
