"""Composition root of credit."""

from leyden.credit.adapters import redis_store
from leyden.credit.handlers import CreditHandlers
from leyden.credit.settings import CreditSection, CreditSettings
from leyden.credit.topology import subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section


def build(runtime: Runtime) -> Service:
    """Credit on Redis and Kafka, by the run file's section `credit:`. Raises `RunFileError` when that is wrong."""
    section = load_section(runtime.settings.run_file, "credit", CreditSection)
    settings = CreditSettings()
    attempts = redis_store(runtime, "attempts", settings)
    groups = redis_store(runtime, "groups", settings)
    handlers = CreditHandlers(attempts, groups, runtime.publisher, section.rules())
    return Service(subscriptions=subscriptions(handlers, settings.max_records))
