"""Composition root of credit."""

from pathlib import Path

from leyden.clock import SystemClock
from leyden.credit.adapters import redis_positions, redis_stores
from leyden.credit.core.section import CreditSection, RewardRules
from leyden.credit.handlers import CreditHandlers
from leyden.credit.settings import CreditSettings
from leyden.credit.sweep import Sweeper, SweepSettings
from leyden.credit.topology import PUBLISHES, readers, subscriptions
from leyden.kafka.progress import KafkaProgress
from leyden.service import Runtime, Service
from leyden.settings import RunFileError, load_section


def load_credit_section(run_file: Path | None) -> CreditSection:
    """Section `credit:`, which must fit the shaping in section `reward:`. Raises `RunFileError`."""
    section = load_section(run_file, "credit", CreditSection)
    if conflict := section.shaping_conflict(load_section(run_file, "reward", RewardRules)):
        raise RunFileError(f"{run_file}: {conflict}")
    return section


def build(runtime: Runtime) -> Service:
    """Credit on Redis and Kafka, with section `credit:` of the run file. Raises `RunFileError` if that is wrong."""
    section = load_credit_section(runtime.settings.run_file)
    settings, clock = CreditSettings(), SystemClock()
    stores = redis_stores(runtime, settings)
    handlers = CreditHandlers(stores, runtime.publisher, section, clock, name=settings.name)
    sweep_settings = SweepSettings(
        interval_s=settings.sweep_interval_s,
        limit=settings.sweep_limit,
        backlog_s=settings.backlog_s,
        open_ttl_s=settings.open_ttl_s,
    )
    progress = KafkaProgress(runtime.kafka, runtime.settings.topic_prefix, readers(section, settings.name))
    sweeper = Sweeper(
        grouping=handlers.grouping,
        stores=stores,
        group=section.group,
        reading=progress,
        clock=clock,
        settings=sweep_settings,
    )
    return Service(
        subscriptions=subscriptions(
            handlers,
            section,
            name=settings.name,
            max_records=settings.max_records,
            positions=redis_positions(runtime, settings),
        ),
        publishes=PUBLISHES,
        before=[sweeper.hold_off],
        beside=[sweeper.run],
        after=[progress.close],
    )
