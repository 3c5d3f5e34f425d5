"""The gateway put together."""

import secrets

from starlette.routing import BaseRoute

from leyden.clock import Clock, SystemClock
from leyden.gateway.adapters.engines import AiohttpEngines
from leyden.gateway.adapters.log import PatientLog
from leyden.gateway.adapters.store import RedisRolloutStore
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.routing import RoutingTable
from leyden.gateway.handlers.calls import ModelCalls
from leyden.gateway.handlers.models import ModelsHandler
from leyden.gateway.handlers.recorder import Recorder
from leyden.gateway.handlers.rollouts import LifeSettings, Rollouts
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.gateway.http.intake import Limiter
from leyden.gateway.http.leyden import LeydenApi
from leyden.gateway.http.openai import ModelApi
from leyden.gateway.http.otlp import TraceApi
from leyden.gateway.ports import Engines, Log, RolloutStore
from leyden.gateway.settings import GatewaySettings
from leyden.gateway.topology import subscriptions
from leyden.service import Runtime, Service


class Gateway:
    """The handlers and routes on given ports; what differs between a process and a test is only the ports."""

    def __init__(
        self, settings: GatewaySettings, store: RolloutStore, engines: Engines, log: Log, clock: Clock
    ) -> None:
        self._settings = settings
        self._log = log
        self.table = RoutingTable()
        self.models = ModelsHandler(self.table)
        self.tasks = TasksHandler(store, log, clock)
        life = LifeSettings(
            settings.lease_s, settings.claim_poll_s, settings.sweep_interval_s, settings.unsettled_grace_s
        )
        self.rollouts = Rollouts(store, log, clock, life)
        self.recorder = Recorder(store, log)
        self.calls = ModelCalls(
            self.table, engines, store, self.recorder, clock, lambda: secrets.token_hex(16), settings.truncated_sampling
        )

    def routes(self) -> list[BaseRoute]:
        """All routes but the ops routes."""
        knobs = self._settings
        secret = knobs.secret.get_secret_value().encode()
        keys = KeyRing(knobs.keys, secret)
        calls = Limiter("calls", knobs.max_concurrent_calls, 429, knobs.retry_after_s)
        traces = Limiter("traces", knobs.max_concurrent_traces, 503, knobs.retry_after_s)
        model_api = ModelApi(keys, self.calls, self.table, calls, knobs.max_body_bytes, knobs.retry_after_s)
        trace_api = TraceApi(keys, self._log, traces, knobs.max_trace_bytes, knobs.retry_after_s)
        leyden_api = LeydenApi(
            keys=keys,
            tasks=self.tasks,
            rollouts=self.rollouts,
            table=self.table,
            public_url=knobs.url,
            secret=secret,
            lease_s=knobs.lease_s,
            max_body_bytes=knobs.max_body_bytes,
            retry_after_s=knobs.retry_after_s,
        )
        return [*model_api.routes(), *trace_api.routes(), *leyden_api.routes()]


def build(runtime: Runtime) -> Service:
    """The gateway as a service. Raises `pydantic.ValidationError` when a setting is missing or wrong."""
    settings = GatewaySettings()
    engines = AiohttpEngines(
        settings.engine_connect_timeout_s,
        settings.engine_timeout_s,
        settings.engine_keepalive_s,
        settings.max_concurrent_calls,
    )
    log = PatientLog(runtime.publisher, settings.publish_timeout_s, settings.publish_pause_s)
    namespace = runtime.namespace("rollouts")
    store = RedisRolloutStore(runtime.redis, namespace, settings.store_timeout_s, settings.state_ttl_s)
    gateway = Gateway(settings, store, engines, log, SystemClock())
    return Service(
        subscriptions=subscriptions(gateway.models, gateway.tasks),
        before=[engines.open],
        beside=[gateway.rollouts.sweep_forever],
        after=[gateway.recorder.drain, engines.close],
        routes=gateway.routes(),
        ready=store.ready,
        host=settings.host,
        port=settings.port,
    )
