"""Composition root of the gateway."""

import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from starlette.routing import BaseRoute

from leyden.clock import Clock, SystemClock
from leyden.gateway.adapters.earlier_calls import RedisEarlierCalls
from leyden.gateway.adapters.engines import AiohttpEngines
from leyden.gateway.adapters.history import KafkaHistory
from leyden.gateway.adapters.kept import RedisKeptResponses
from leyden.gateway.adapters.log import KafkaLog
from leyden.gateway.adapters.rates import RedisRates
from leyden.gateway.adapters.store import RedisRolloutStore
from leyden.gateway.adapters.upstreams_file import load_upstreams
from leyden.gateway.core.keys import KEY_ID_BYTES, SECRET_BYTES, KeyRing, NewKey, new_key, owner_of
from leyden.gateway.core.resilience import CircuitRules, RetryRules
from leyden.gateway.core.routing import Router, RoutingRules, RoutingTable
from leyden.gateway.core.upstreams import Upstreams
from leyden.gateway.handlers.admission import Budget, CallsInFlight, KeyLimiter, Limiter
from leyden.gateway.handlers.call_watch import CallWatch
from leyden.gateway.handlers.calls import ModelCalls, Recorder
from leyden.gateway.handlers.continuations import Continuations, StickyVersions
from leyden.gateway.handlers.counting import TokenCounter
from leyden.gateway.handlers.kept import Kept
from leyden.gateway.handlers.keys import KeysHandler
from leyden.gateway.handlers.models import ModelsHandler
from leyden.gateway.handlers.otlp import OtlpHandler
from leyden.gateway.handlers.ownership import Ownership
from leyden.gateway.handlers.restoring import Restorer, RestoringTimes
from leyden.gateway.handlers.rollouts import LifeSettings, Rollouts
from leyden.gateway.handlers.servers import Dispatcher, Servers
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.gateway.http.fallback import with_fallback
from leyden.gateway.http.keys import KeysApi
from leyden.gateway.http.model_api import ModelApi
from leyden.gateway.http.models import Catalog, CountingApi
from leyden.gateway.http.openapi import document_operation
from leyden.gateway.http.operations import LeydenRoutes, Operation
from leyden.gateway.http.otlp import OtlpApi
from leyden.gateway.http.protocol import WAITS_S, StampedProtocol, Wait, bounded
from leyden.gateway.http.requests import Bodies
from leyden.gateway.http.responses import ResponsesApi
from leyden.gateway.http.rollouts import RolloutsApi
from leyden.gateway.ports import EarlierCalls, Engines, KeptResponses, Log, Rates, RolloutStore
from leyden.gateway.settings import GatewaySettings
from leyden.gateway.topology import PUBLISHES, READS, subscriptions
from leyden.kafka.claims import ClaimStore
from leyden.service import Runtime, Service


class Gateway:
    """The handlers and routes on given ports; tests pass other ports than a process."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        store: RolloutStore,
        engines: Engines,
        log: Log,
        clock: Clock,
        rates: Rates,
        kept: KeptResponses,
        upstreams: Upstreams | None = None,
        earlier: EarlierCalls | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._engines = engines
        self._secret = settings.secret.get_secret_value().encode()
        self.ring = KeyRing(settings.keys, self._secret, clock.now)
        self.keys = KeysHandler(self.ring, log, clock, random_key)
        self.limiter = KeyLimiter(self.ring, rates, clock, settings.retry_after_s)
        self.table = RoutingTable()
        self.servers = Servers(CircuitRules(settings.circuit_failures, settings.circuit_pause_s), time.monotonic)
        self.models = ModelsHandler(self.table, self.servers.reported)
        life = LifeSettings(
            lease_s=settings.lease_s,
            claim_poll_s=settings.claim_poll_s,
            sweep_interval_s=settings.sweep_interval_s,
            unsettled_grace_s=settings.unsettled_grace_s,
            loop_calls=settings.loop_calls,
        )
        self.rollouts = Rollouts(store, log, clock, life)
        self.ownership = Ownership(store)
        self.tasks = TasksHandler(store, log, clock, self.rollouts, partial(owner_of, self._secret))
        self.recorder = Recorder(store, log, self.limiter)
        self.upstreams = upstreams or Upstreams()
        self.continuations = Continuations(earlier, settings.tokens_in_policies) if earlier else None
        limits = f"{settings.responses_max_bytes} bytes for {settings.responses_ttl_s} s of each rollout and key"
        self.kept = Kept(kept, limits)
        self.call_slots = Limiter("calls", settings.max_concurrent_calls, 429, settings.retry_after_s)
        self.in_flight = CallsInFlight()
        self.watch = CallWatch(self.in_flight, store, secrets.token_hex(8), settings.sweep_interval_s)
        self.calls = self._calls(settings, store, engines, clock)
        self.otlp = OtlpApi(
            keys=self.ring,
            handler=OtlpHandler(log, settings.trace_record_bytes, self.ownership),
            limiter=Limiter("traces", settings.max_concurrent_traces, 503, settings.retry_after_s),
            bodies=Bodies(
                Budget("otlp", settings.max_trace_bytes_in_flight, settings.retry_after_s),
                settings.max_trace_bytes,
                settings.body_timeout_s,
                settings.body_stall_timeout_s,
                late_retry_after_s=settings.retry_after_s,
            ),
            retry_after_s=settings.retry_after_s,
        )
        self.bodies = Bodies(
            self._budget("json"),
            settings.max_body_bytes,
            settings.body_timeout_s,
            settings.body_stall_timeout_s,
            settings.max_decoded_bytes,
        )
        self.leyden_bodies = replace(self.bodies, budget=self._budget("leyden"))
        self.operations = self._operations()

    def _budget(self, kind: str) -> Budget:
        return Budget(kind, self._settings.max_body_bytes_in_flight, self._settings.retry_after_s)

    def _calls(self, settings: GatewaySettings, store: RolloutStore, engines: Engines, clock: Clock) -> ModelCalls:
        retries = RetryRules(
            settings.retry_tries, settings.retry_base_s, settings.retry_cap_s, settings.retry_after_cap_s
        )
        rules = RoutingRules(settings.engine_timeouts, settings.balance, settings.engine_max_in_flight)
        router = Router(self.table, self.upstreams, rules)
        dispatcher = Dispatcher(
            engines=engines,
            router=router,
            servers=self.servers,
            rules=retries,
            clock=clock,
            in_flight=self.in_flight,
            retry_after_s=settings.retry_after_s,
        )
        return ModelCalls(
            ring=self.ring,
            limiter=self.call_slots,
            keys=self.limiter,
            router=router,
            dispatcher=dispatcher,
            recorder=self.recorder,
            store=store,
            clock=clock,
            new_id=partial(secrets.token_hex, 16),
            shaped=settings.shaped_sampling,
            continuations=self.continuations,
            sticky=StickyVersions(store) if settings.sticky_version == "rollout" else None,
            kept=self.kept,
            ownership=self.ownership,
        )

    def _operations(self) -> list[Operation]:
        """Every route except the health routes. They are tried in order, so the busiest come first."""
        knobs = self._settings
        retry_after_s = knobs.retry_after_s
        bodies = self.bodies
        leyden = LeydenRoutes(
            self.ring,
            Limiter("requests", knobs.max_concurrent_requests, 503, retry_after_s),
            self.leyden_bodies,
            retry_after_s,
        )
        rollouts = RolloutsApi(
            leyden=leyden,
            claims=Limiter("claims", knobs.max_concurrent_claims, 503, retry_after_s),
            tasks=self.tasks,
            rollouts=self.rollouts,
            table=self.table,
            public_url=knobs.url,
            secret=self._secret,
            lease_s=knobs.lease_s,
        )
        counter = TokenCounter(self.table, self._engines, knobs.engine_timeouts)
        operations = [
            *ModelApi(self.calls, bodies, retry_after_s).operations(),
            *Catalog(self.ring, self.table, self.upstreams, retry_after_s).operations(),
            *CountingApi(self.ring, counter, self.call_slots, bodies, retry_after_s).operations(),
            *ResponsesApi(
                keys=self.ring,
                kept=self.kept,
                counter=counter,
                limiter=self.call_slots,
                bodies=bodies,
                retry_after_s=retry_after_s,
            ).operations(),
            *self.otlp.operations(),
            *rollouts.operations(),
            *KeysApi(leyden, self.ring, self.keys).operations(),
        ]
        return [*operations, document_operation(leyden, operations)]

    def routes(self) -> list[BaseRoute]:
        """All routes except the ops routes."""
        return with_fallback(self.operations, self.ring, self._settings.retry_after_s)


def random_key() -> NewKey:
    """A random key."""
    return new_key(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(SECRET_BYTES))


def waits_s(settings: GatewaySettings) -> dict[Wait, float]:
    """How long connections wait for their clients, in seconds."""
    told = {Wait.HEAD: settings.head_timeout_s, Wait.READER: settings.send_timeout_s}
    # The handler answers a body that does not come; the connection's limit is for bodies that nobody reads.
    told |= {Wait.CLOSED: settings.send_timeout_s, Wait.BODY: settings.body_timeout_s + WAITS_S[Wait.REST]}
    return {**WAITS_S, **told}


def grpc_servers(otlp: OtlpApi, settings: GatewaySettings) -> list[Callable[[], Awaitable[None]]]:
    """The gRPC server if its port is set; the library is imported only then."""
    if not settings.grpc_port:
        return []
    from leyden.gateway.rpc import GrpcLimits, GrpcOtlp

    limits = GrpcLimits(
        max_streams=settings.max_concurrent_traces,
        max_message_bytes=min(settings.grpc_max_message_bytes, settings.max_trace_bytes),
        max_messages=max(2, settings.max_trace_bytes_in_flight // settings.grpc_max_message_bytes),
        message_timeout_s=settings.body_stall_timeout_s,
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        head_timeout_s=settings.head_timeout_s,
    )
    return [GrpcOtlp(otlp, settings.host, settings.grpc_port, limits).serve]


def build(runtime: Runtime) -> Service:
    """The gateway as a service. Raises `pydantic.ValidationError` if a setting is missing or wrong."""
    settings = GatewaySettings()
    engines = AiohttpEngines(settings.engine_keepalive_s, settings.max_concurrent_calls, settings.max_reply_bytes)
    upstreams = load_upstreams(settings.upstreams, os.environ, settings.engine_timeouts)
    log = KafkaLog(runtime.publisher, settings.publish_timeout_s, settings.publish_pause_s, settings.publish_slow_s)
    namespace = runtime.namespace("rollouts")
    shares = {"train": settings.train_share, "validation": settings.validation_share}
    store = RedisRolloutStore(
        runtime.redis, namespace, timeout_s=settings.store_timeout_s, ttl_s=settings.state_ttl_s, shares=shares
    )
    rates = RedisRates(runtime.redis, runtime.namespace("rates"), settings.store_timeout_s)
    said = RedisEarlierCalls(
        runtime.redis,
        runtime.namespace("said"),
        ttl_s=settings.state_ttl_s,
        most=settings.tokens_in_answers,
        timeout_s=settings.store_timeout_s,
    )
    earlier = said if settings.tokens_in_policies else None
    kept = RedisKeptResponses(
        runtime.redis,
        runtime.namespace("responses"),
        ttl_s=settings.responses_ttl_s,
        max_bytes=settings.responses_max_bytes,
        timeout_s=settings.store_timeout_s,
    )
    gateway = Gateway(
        settings=settings,
        store=store,
        engines=engines,
        log=log,
        clock=SystemClock(),
        rates=rates,
        kept=kept,
        upstreams=upstreams,
        earlier=earlier,
    )
    history = KafkaHistory(runtime.kafka, runtime.settings.topic_prefix, ClaimStore(runtime.settings.claims))
    times = RestoringTimes(settings.sweep_interval_s, settings.unsettled_grace_s, settings.state_ttl_s)
    restorer = Restorer(store, history, gateway.rollouts, SystemClock(), times)

    async def ready() -> str | None:
        return await store.ready() or restorer.ready()

    gateway.ring.complete = gateway.keys.read.is_set
    return Service(
        subscriptions=subscriptions(gateway.models, gateway.tasks, gateway.keys),
        publishes=PUBLISHES,
        reads=READS,
        before=[engines.open],
        beside=[
            gateway.rollouts.sweep_forever,
            gateway.watch.watch_forever,
            restorer.watch_forever,
            *grpc_servers(gateway.otlp, settings),
        ],
        after=[gateway.recorder.drain, engines.close],
        routes=gateway.routes(),
        ready=ready,
        http=bounded(
            StampedProtocol,
            max_header_bytes=settings.max_header_bytes,
            max_headers=settings.max_headers,
            max_connections=settings.max_connections,
            retry_after_s=settings.retry_after_s,
            waits_s=waits_s(settings),
        ),
        host=settings.host,
        port=settings.port,
    )
