"""Composition root of credit."""

from dataclasses import replace

from leyden.clock import SystemClock
from leyden.credit.adapters import redis_stores
from leyden.credit.handlers import CreditHandlers
from leyden.credit.settings import CreditSection, CreditSettings
from leyden.credit.sweep import Patience, Sweeper
from leyden.credit.topology import PUBLISHES, subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section


def build(runtime: Runtime) -> Service:
    """Credit on Redis and Kafka, by the run file's section `credit:`. Raises `RunFileError` when that is wrong."""
    section = load_section(runtime.settings.run_file, "credit", CreditSection)
    settings, clock = CreditSettings(), SystemClock()
    rules = replace(section.rules(), credit=settings.name)
    stores = redis_stores(runtime, settings)
    handlers = CreditHandlers(stores, runtime.publisher, rules, clock, settings.backlog_s)
    patience = Patience(settings.sweep_interval_s, settings.sweep_limit, settings.backlog_s, settings.open_ttl_s)
    sweeper = Sweeper(handlers.grouping, stores, rules, clock, patience)
    return Service(
        subscriptions=subscriptions(handlers, rules, settings.max_records),
        publishes=PUBLISHES,
        before=[sweeper.hold_off],
        beside=[sweeper.run],
    )
