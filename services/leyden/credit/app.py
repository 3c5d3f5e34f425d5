"""Composition root of credit."""

from leyden.clock import SystemClock
from leyden.credit.adapters import redis_stores
from leyden.credit.core.section import CreditSection
from leyden.credit.handlers import CreditHandlers
from leyden.credit.settings import CreditSettings
from leyden.credit.sweep import Sweeper, SweepSettings
from leyden.credit.topology import PUBLISHES, subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section


def build(runtime: Runtime) -> Service:
    """Credit on Redis and Kafka, with section `credit:` of the run file. Raises `RunFileError` if that is wrong."""
    section = load_section(runtime.settings.run_file, "credit", CreditSection)
    settings, clock = CreditSettings(), SystemClock()
    stores = redis_stores(runtime, settings)
    handlers = CreditHandlers(
        stores, runtime.publisher, section, clock, name=settings.name, backlog_s=settings.backlog_s
    )
    sweep_settings = SweepSettings(
        interval_s=settings.sweep_interval_s,
        limit=settings.sweep_limit,
        backlog_s=settings.backlog_s,
        open_ttl_s=settings.open_ttl_s,
    )
    sweeper = Sweeper(handlers.grouping, stores, section.group, clock, sweep_settings)
    return Service(
        subscriptions=subscriptions(handlers, section, name=settings.name, max_records=settings.max_records),
        publishes=PUBLISHES,
        before=[sweeper.hold_off],
        beside=[sweeper.run],
    )
