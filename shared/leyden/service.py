"""How a service runs: settings, logs, Kafka, handlers, ops routes, and an orderly end. One place for all of them.

A service gives a `Build` function from a `Runtime` (what it may use) to a `Service` (what it is); `main` does the rest.
On SIGTERM: no new batches, the batch in hand is finished and committed, the group is left, the process ends with 0.
"""

import argparse
import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import uvicorn
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from leyden.backoff import Backoff, retrying
from leyden.extensions import ExtensionError
from leyden.kafka import Retry
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import KafkaBroker, make_broker
from leyden.kafka.loop import RetryPolicy
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import FATAL_EXIT, BatchConsumer, Subscription
from leyden.kafka.topics import DEAD_LETTER_SUFFIX
from leyden.settings import RunFileError, ServiceSettings, settings_help
from leyden.telemetry.logs import setup_logging
from leyden.telemetry.ops import health_routes, metrics_route

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 1.0
COLLECTED_AFTER = (10_000, 20, 20)
"""New objects before the youngest are looked at for cycles, and how often the older ones are (Python: 700, 10, 10)."""
STARTUP_PATIENCE_S = 120.0
"""How long a starting service waits for Kafka before it ends with a clear message."""


@dataclass(frozen=True)
class Runtime:
    """What a service is given to build itself with."""

    name: str
    settings: ServiceSettings
    kafka: KafkaSettings
    publisher: KafkaPublisher
    redis: Redis

    def namespace(self, what: str) -> str:
        """The Redis namespace `<prefix><service>:<what>`, this service's own."""
        return f"{self.settings.topic_prefix}{self.name}:{what}"


@dataclass
class Service:
    """What a service is: what it consumes, what it does before and beside that, and which routes it serves."""

    subscriptions: Sequence[Subscription] = ()
    publishes: frozenset[str] = frozenset()
    """The topics that it publishes to; a record for another raises `UndeclaredTopicError`. Dead letters are added."""
    reads: frozenset[str] = frozenset()
    """The topics that it reads outside of `subscriptions`, from their beginning, outside every consumer group."""
    before: Sequence[Callable[[], Awaitable[None]]] = ()
    """Awaited in order before the first record is consumed; the publisher works already."""
    beside: Sequence[Callable[[], Awaitable[None]]] = ()
    """Run for the life of the process; one that ends or raises ends the process."""
    after: Sequence[Callable[[], Awaitable[None]]] = ()
    """Awaited at the end, after the consumers have stopped, while the publisher still works."""
    routes: Sequence[BaseRoute] = ()
    ready: Callable[[], Awaitable[str | None]] | None = None
    """More than the plumbing's own readiness: None, or one sentence saying what is missing."""
    host: str = "127.0.0.1"
    port: int = 0
    """Where `routes` are served; health is there too, metrics only on the ops port."""
    http: type[asyncio.Protocol] | None = None
    """uvicorn's HTTP protocol for `routes`; None: the fastest that is installed."""


Build = Callable[[Runtime], Service]


def main(
    name: str,
    build: Build,
    description: str,
    *,
    environment: type[BaseSettings],
    section: tuple[str, type[BaseModel]] | None = None,
) -> None:
    """Command line of a service: `--help` lists all its settings; otherwise run until a signal comes.

    `environment` is the service's own environment, `section` the name and model of its section of the run file.
    """
    listed = settings_help((environment, ServiceSettings, KafkaSettings), section)
    parser = argparse.ArgumentParser(prog=f"python -m leyden.{name}", description=description, epilog=listed)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args()
    try:
        settings, kafka = ServiceSettings(), KafkaSettings()
        setup_logging(name, settings.log_level)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(name, build, settings, kafka))
    except (ValidationError, RunFileError, ExtensionError) as error:
        raise SystemExit(f"leyden {name}: the settings are wrong: {error}") from error
    except Exception as error:
        log.critical("%s stops on an unexpected error", name, exc_info=True)
        raise SystemExit(FATAL_EXIT) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where that is installed: much of a busy service's CPU time is its loop's."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]


async def serve(name: str, build: Build, settings: ServiceSettings, kafka: KafkaSettings) -> None:
    """Run the service until SIGTERM or SIGINT; raises what made it impossible to go on."""
    async with AsyncExitStack() as stack:
        claims = ClaimStore(settings.claims)
        publisher = KafkaPublisher(kafka, settings.topic_prefix, claims, client_id=f"leyden-{name}")
        redis = Redis.from_url(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        runtime = Runtime(name, settings, kafka, publisher, redis)
        service = build(runtime)
        broker, consumers = register(service, runtime)
        await _started(publisher)
        stack.push_async_callback(publisher.stop)
        stack.push_async_callback(broker.stop)
        for step in service.before:
            await step()
        await broker.start()
        log.info("%s is consuming %s", name, [t for s in service.subscriptions for t in s.topics])
        watchers = [asyncio.create_task(consumer.watch_backlog()) for consumer in consumers]
        _spare_collector()
        beside = [*service.beside, *(consumer.watch for consumer in consumers)]
        await _until_stopped(_servers(service, settings, consumers), beside)
        for watcher in watchers:
            watcher.cancel()
        for subscriber in broker.subscribers:
            await subscriber.stop()
        for step in service.after:
            await step()
    log.info("%s has stopped", name)


def register(
    service: Service, runtime: Runtime, die: Callable[[int], None] = os._exit
) -> tuple[KafkaBroker, list[BatchConsumer]]:
    """A broker, not yet started, with all that `service` consumes and publishes; its publisher takes nothing else.

    `die` ends the process when a consumer cannot go on.
    """
    broker = make_broker(runtime.name, runtime.kafka)
    prefix, claims = runtime.settings.topic_prefix, ClaimStore(runtime.settings.claims)
    retry = RetryPolicy(dead_letter_limit=runtime.settings.dead_letter_limit)
    consumers = [
        BatchConsumer(s, runtime.kafka, runtime.publisher, claims, prefix, retry, die) for s in service.subscriptions
    ]
    for consumer in consumers:
        consumer.register(broker)
    dead_letters = {topic + DEAD_LETTER_SUFFIX for s in service.subscriptions for topic in s.topics}
    for topic in sorted(service.publishes | dead_letters):
        broker.publisher(prefix + topic)
    runtime.publisher.allow_only(service.publishes | dead_letters)
    return broker, consumers


async def _started(publisher: KafkaPublisher) -> None:
    def tell(error: Exception, delay_s: float) -> None:
        log.warning("trying again in %.0f s: %s", delay_s, error)

    try:
        async with asyncio.timeout(STARTUP_PATIENCE_S):
            await retrying(publisher.start, Backoff(1.0, 1.0), Retry, failed=tell)
    except TimeoutError as error:
        text = f"Kafka did not answer for {STARTUP_PATIENCE_S:.0f} s; check KAFKA_BOOTSTRAP_SERVERS"
        raise SystemExit(text) from error


def _servers(service: Service, settings: ServiceSettings, consumers: Sequence[BatchConsumer]) -> list[uvicorn.Server]:
    """The ops server, and one for the service's own routes where it has any; metrics are on the ops port only."""

    async def alive() -> str | None:
        return next((p for c in consumers if (p := c.stalled(settings.stall_after_s))), None)

    async def ready() -> str | None:
        waiting = [c.subscription.topics for c in consumers if not c.caught_up.is_set()]
        if waiting:
            return f"still reading the backlog of {waiting[0]}"
        # A service with routes stays ready: it answers its callers itself while something that it needs is away.
        held_up = None if service.routes else next((c.waiting_for for c in consumers if c.waiting_for), None)
        if held_up:
            return held_up
        return await service.ready() if service.ready else None

    servers = [_server([*health_routes(alive, ready), metrics_route()], settings.ops_host, settings.ops_port)]
    if service.routes:
        routes = [*health_routes(alive, ready), *service.routes]
        servers.append(_server(routes, service.host, service.port, service.http))
    return servers


def _server(
    routes: Sequence[BaseRoute], host: str, port: int, http: type[asyncio.Protocol] | None = None
) -> uvicorn.Server:
    config = uvicorn.Config(
        Starlette(routes=routes),
        host=host,
        port=port,
        http=http or "auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nobody asks where a request came from, and it would cost every request
        timeout_graceful_shutdown=20,
        lifespan="off",
    )
    return uvicorn.Server(config)


def _spare_collector() -> None:
    """Have the garbage collector leave alone what start-up made, and come seldom.

    Each of its rounds walked the modules of every library again: a sixth of a busy gateway's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


async def _until_stopped(servers: Sequence[uvicorn.Server], beside: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Serve until a signal; a task of `beside` that ends first ends the service, with its error."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; the orderly end must still follow.
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
    """Cancel until all have ended: Python 3.11's `wait_for`, in any library, may swallow a single cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
