"""The agent: keeps its engine at the promoted version of its policy.

It is level-triggered: promotions only set the target, and one loop compares it with the engine's state. So superseded
promotions are never loaded, and an engine that restarted at version 0 is updated without a new event.
"""

import asyncio
import logging
from collections.abc import Sequence

from leyden.clock import Clock
from leyden.events import Event, PolicyPromoted, PolicyServed
from leyden.events.codec import MODELS
from leyden.events.promotions import Promotion
from leyden.kafka.delivered import Delivered, Outgoing, Publisher, Retry
from leyden.policy.core import EngineReport, Replica, announcement, next_load
from leyden.policy.metrics import ENGINE_UP, LIVE_VERSION, SWAP_SECONDS, SWAPS
from leyden.policy.ports import Engine, EngineAwayError, EngineRefusedError

log = logging.getLogger(__name__)


class PolicyAgent:
    """The agent of one engine."""

    def __init__(self, engine: Engine, publisher: Publisher, clock: Clock, replica: Replica) -> None:
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._replica = replica
        self._promotion = Promotion()
        self._refused = ""
        self._announced: PolicyServed | None = None
        self._changed = asyncio.Event()

    async def on_models(self, batch: Sequence[Delivered[Event]]) -> None:
        """Note the policy's promotions in `batch` and wake the loop."""
        for one in batch:
            if isinstance(one.event, PolicyPromoted) and one.event.policy == self._replica.policy:
                self._promotion.add(one.event)
        self._changed.set()

    async def follow(self, probe_s: float) -> None:
        """Call `converge` at each promotion and every `probe_s` seconds. Never returns."""
        away = ""
        while True:
            self._changed.clear()
            try:
                await self.converge()
                away = ""
            except (EngineAwayError, Retry) as problem:
                if str(problem) != away:
                    log.warning("the promoted version is not served yet: %s", problem)
                away = str(problem)
            try:
                await asyncio.wait_for(self._changed.wait(), probe_s)
            except TimeoutError:
                continue

    async def converge(self) -> None:
        """Compare the engine with the target, load the target if they differ, and announce the served version.

        Raises EngineAwayError if the engine is unavailable, Retry if Kafka is.
        """
        try:
            report = await self._engine.report()
            if report.policy != (policy := self._replica.policy):
                raise EngineAwayError(
                    f"the engine serves policy {report.policy!r}, but this agent is for {policy!r}; check "
                    "LEYDEN_POLICY_ENGINE_URL and LEYDEN_POLICY_NAME"
                )
        except EngineAwayError:
            ENGINE_UP.set(0)
            raise
        ENGINE_UP.set(1)
        report = await self._load(report)
        LIVE_VERSION.set(report.version)
        await self._announce(report)

    async def ready(self) -> str | None:
        """None once the engine's version has been announced."""
        return None if self._announced else f"the engine at {self._replica.endpoint} has not answered yet"

    async def _load(self, report: EngineReport) -> EngineReport:
        wanted = self._promotion.current
        load = next_load(report, wanted)
        if wanted is None or load is None or wanted.event_id == self._refused:
            return report
        try:
            with SWAP_SECONDS.time():
                report = await self._engine.load(report.policy, load.version, load.folder)
        except EngineRefusedError as problem:
            SWAPS.labels(result="refused").inc()
            log.error("the engine refused %s@%d: %s", report.policy, load.version, problem)  # noqa: TRY400  (no bug)
            self._refused = wanted.event_id
            return report
        except EngineAwayError:
            SWAPS.labels(result="away").inc()
            raise
        SWAPS.labels(result="done").inc()
        log.info("%s@%d is live", report.policy, report.version)
        return report

    async def _announce(self, report: EngineReport) -> None:
        event = announcement(report, self._promotion.current, self._replica, self._clock.now())
        if self._announced and _same_state(event, self._announced):
            return
        await self._publisher.publish_all([Outgoing(MODELS, f"{report.policy}/{self._replica.name}", event)])
        self._announced = event


def _same_state(one: PolicyServed, other: PolicyServed) -> bool:
    return (one.policy, one.version, one.model, one.engine) == (other.policy, other.version, other.model, other.engine)
