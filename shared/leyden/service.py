"""Runs a service: settings, logging, Kafka, handlers, health and metrics routes, graceful shutdown.

A service defines a `Build` function that takes a `Runtime` (its dependencies) and returns a `Service`; `main` runs it.
On SIGTERM it fetches no more batches, finishes and commits the current one, leaves the consumer group and exits with 0.
"""

import argparse
import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from pydantic import ValidationError
from pydantic_settings import BaseSettings
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from leyden.backoff import Backoff, retrying
from leyden.extensions import ExtensionError
from leyden.kafka import Retry
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import KafkaBroker, make_broker
from leyden.kafka.loop import LoopSettings
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import FATAL_EXIT, BatchConsumer, Subscription
from leyden.kafka.topics import DEAD_LETTER_SUFFIX
from leyden.settings import (
    FieldProblem,
    RunFileError,
    SectionT,
    ServiceSettings,
    environment_problems,
    section_problems,
    settings_help,
)
from leyden.state import make_redis
from leyden.telemetry.logs import setup_logging
from leyden.telemetry.ops import Check, health_routes, metrics_route

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 1.0
GC_THRESHOLDS = (10_000, 20, 20)
"""For `gc.set_threshold`; Python's defaults are 700, 10, 10."""
STARTUP_TIMEOUT_S = 120.0
"""How long a starting service waits for Kafka before it exits."""


class WrongSettingsError(Exception):
    """The environment or the run file is invalid. The message names the setting and the reason."""


@dataclass(frozen=True)
class Runtime:
    """What a service gets to build itself from."""

    name: str
    settings: ServiceSettings
    kafka: KafkaSettings
    publisher: KafkaPublisher
    redis: Redis

    def namespace(self, what: str) -> str:
        """The service's own Redis namespace `<prefix><service>:<what>`."""
        return f"{self.settings.topic_prefix}{self.name}:{what}"


@dataclass
class Service:
    """Everything that `serve` runs: subscriptions, background tasks, start-up and shutdown steps, HTTP routes."""

    subscriptions: Sequence[Subscription] = ()
    publishes: frozenset[str] = frozenset()
    """Topics that it publishes to; any other raises `UndeclaredTopicError`. Dead-letter topics are added to it."""
    reads: frozenset[str] = frozenset()
    """Topics that it reads from their beginning without a consumer group, in addition to `subscriptions`."""
    before: Sequence[Callable[[], Awaitable[None]]] = ()
    """Start-up steps, awaited in order before consuming starts. The publisher is already running."""
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    """Background tasks. If one returns or raises, the process stops."""
    after: Sequence[Callable[[], Awaitable[None]]] = ()
    """Shutdown steps, awaited in order after the consumers have stopped. The publisher is still running."""
    routes: Sequence[BaseRoute] = ()
    ready: Callable[[], Awaitable[str | None]] | None = None
    """The service's own readiness check: None if ready, else one sentence with the reason."""
    host: str = "127.0.0.1"
    port: int = 0
    """Port for `routes` and the health routes. Metrics are on the ops port only."""
    http: type[asyncio.Protocol] | None = None
    """uvicorn's HTTP protocol for `routes`; None: the fastest one installed."""


Build = Callable[[Runtime], Service]


def main(
    name: str,
    build: Build,
    description: str,
    *,
    environment: type[BaseSettings],
    section: tuple[str, type[SectionT]] | None = None,
    check: Callable[[SectionT], Iterable[FieldProblem]] = lambda _: (),
) -> None:
    """Command line of a service: runs it until a signal. `--help` lists all its settings.

    `environment` is the model of the service's own settings, `section` the name and model of its run file section,
    `check` what else `--check-run-file` finds in a valid section.
    """
    models = (environment, ServiceSettings, KafkaSettings)
    parser = argparse.ArgumentParser(prog=f"python -m leyden.{name}", description=description)
    parser.epilog = settings_help(models, section)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if section is not None:
        help_text = "only check this run file, print what is wrong with the section, and exit with 1 if something is"
        parser.add_argument("--check-run-file", type=Path, metavar="FILE", help=help_text)
    options = parser.parse_args()
    if section is not None and options.check_run_file is not None:
        problems = section_problems(options.check_run_file, *section, check)
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        raise SystemExit(1 if problems else 0)
    try:
        with _settings_are_read():
            settings, kafka = ServiceSettings(), KafkaSettings()
        setup_logging(name, settings.log_level)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(name, build, settings, kafka))
    except (WrongSettingsError, RunFileError) as error:
        cause = error.__cause__
        text = environment_problems(cause, models) if isinstance(cause, ValidationError) else str(error)
        raise SystemExit(f"leyden {name}: invalid settings: {text}") from error
    except Exception as error:
        log.critical("%s stopped because of an unexpected error", name, exc_info=True)
        raise SystemExit(FATAL_EXIT) from error


@contextmanager
def _settings_are_read() -> Iterator[None]:
    """Convert a validation error in the block to `WrongSettingsError`; elsewhere such an error is a bug."""
    try:
        yield
    except (ValidationError, RunFileError, ExtensionError) as error:
        raise WrongSettingsError(str(error)) from error


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop factory of uvloop if it is installed: the event loop takes much of a busy service's CPU time."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]


async def serve(name: str, build: Build, settings: ServiceSettings, kafka: KafkaSettings) -> None:
    """Run the service until SIGTERM or SIGINT. Raises the error that stopped it, if one did."""
    async with AsyncExitStack() as stack:
        claims = ClaimStore(settings.claims)
        publisher = KafkaPublisher(kafka, settings.topic_prefix, claims, client_id=f"leyden-{name}")
        redis = make_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        runtime = Runtime(name, settings, kafka, publisher, redis)
        with _settings_are_read():
            service = build(runtime)
        broker, consumers = register(service, runtime)
        await _started(publisher)
        stack.push_async_callback(publisher.stop)
        stack.push_async_callback(broker.stop)
        for step in service.before:
            await step()
        await broker.start()
        for consumer in consumers:
            await consumer.begin()
        log.info("%s consumes %s", name, [t for s in service.subscriptions for t in s.topics])
        watchers = [asyncio.create_task(consumer.watch_backlog()) for consumer in consumers]
        _tune_garbage_collector()
        keeping = [consumer for consumer in consumers if consumer.subscription.positions is not None]
        watches = [*(one.watch for one in consumers), *(one.watch_state for one in keeping)]
        beside = [*service.beside, publisher.watch, *watches]
        await until_stopped(_servers(service, settings, consumers), beside)
        for watcher in watchers:
            watcher.cancel()
        for subscriber in broker.subscribers:
            await subscriber.stop()
        for step in service.after:
            await step()
    log.info("%s stopped", name)


def register(
    service: Service, runtime: Runtime, die: Callable[[int], None] = os._exit
) -> tuple[KafkaBroker, list[BatchConsumer]]:
    """Register subscriptions and published topics of `service` on a broker that is not started yet.

    The publisher then accepts no other topic. `die` ends the process when a consumer fails.
    """
    broker = make_broker(runtime.name, runtime.kafka)
    prefix, claims = runtime.settings.topic_prefix, ClaimStore(runtime.settings.claims)
    retry = LoopSettings(dead_letter_limit=runtime.settings.dead_letter_limit)
    consumers = [
        BatchConsumer(
            subscription=s,
            settings=runtime.kafka,
            publisher=runtime.publisher,
            claims=claims,
            prefix=prefix,
            retry=retry,
            die=die,
        )
        for s in service.subscriptions
    ]
    for consumer in consumers:
        consumer.register(broker)
    dead_letters = {topic + DEAD_LETTER_SUFFIX for s in service.subscriptions for topic in s.topics}
    for topic in sorted(service.publishes | dead_letters):
        broker.publisher(prefix + topic)
    runtime.publisher.allow_only(service.publishes | dead_letters)
    return broker, consumers


async def _started(publisher: KafkaPublisher) -> None:
    def log_failure(error: Exception, delay_s: float) -> None:
        log.warning("retrying in %.0f s: %s", delay_s, error)

    try:
        async with asyncio.timeout(STARTUP_TIMEOUT_S):
            await retrying(publisher.start, Backoff(1.0, 1.0), Retry, failed=log_failure)
    except TimeoutError as error:
        text = f"no connection to Kafka within {STARTUP_TIMEOUT_S:.0f} s; check KAFKA_BOOTSTRAP_SERVERS"
        raise SystemExit(text) from error


def health_checks(service: Service, consumers: Sequence[BatchConsumer], stall_after_s: float) -> tuple[Check, Check]:
    """Liveness and readiness of a service with these consumers."""

    async def alive() -> str | None:
        return next((p for c in consumers if (p := c.stalled(stall_after_s))), None)

    async def ready() -> str | None:
        waiting = [c.subscription.topics for c in consumers if not c.caught_up.is_set()]
        if waiting:
            return f"still reading the backlog of {', '.join(waiting[0])}"
        # A service with routes stays ready: it tells its callers itself when a dependency is unavailable.
        held_up = None if service.routes else next((c.waiting_for for c in consumers if c.waiting_for), None)
        if held_up:
            return held_up
        return await service.ready() if service.ready else None

    return alive, ready


def _servers(service: Service, settings: ServiceSettings, consumers: Sequence[BatchConsumer]) -> list[uvicorn.Server]:
    """The ops server (health, metrics) and, if the service has routes, a second server for them."""
    alive, ready = health_checks(service, consumers, settings.stall_after_s)
    ops_routes = [*health_routes(alive, ready), metrics_route()]
    configs = [http_config(ops_routes, settings.ops_host, settings.ops_port)]
    if service.routes:
        routes = [*health_routes(alive, ready), *service.routes]
        configs.append(http_config(routes, service.host, service.port, service.http))
    return [uvicorn.Server(config) for config in configs]


def http_config(
    routes: Sequence[BaseRoute], host: str, port: int, http: type[asyncio.Protocol] | None = None
) -> uvicorn.Config:
    """How a service serves HTTP; `http` is uvicorn's protocol, None the fastest that is installed."""
    return uvicorn.Config(
        Starlette(routes=routes),
        host=host,
        port=port,
        http=http or "auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # client addresses are not used, and parsing the headers costs every request
        ws="none",
        timeout_graceful_shutdown=20,
        lifespan="off",
    )


def _tune_garbage_collector() -> None:
    """Freeze start-up objects and raise the collector's thresholds.

    With the defaults, collections that traverse every imported module take a sixth of a busy gateway's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def until_stopped(servers: Sequence[uvicorn.Server], beside: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Serve until a signal, or until a task of `beside` ends; raises that task's error."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; it must not end the process before the shutdown steps.
        signal.signal(number, lambda *_: None)
    tasks = [asyncio.ensure_future(run()) for run in beside]
    serving = [asyncio.ensure_future(server.serve()) for server in servers]
    done, _ = await asyncio.wait([*serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await _cancelled([task for task in tasks if task not in done])
    results = await asyncio.gather(*serving, *tasks, return_exceptions=True)
    errors = [r for r in results if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError)]
    if errors:
        raise errors[0]


async def _cancelled(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel repeatedly until all have ended: in Python 3.11 `wait_for` can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
