"""Composition root of reward."""

import math

from leyden.clock import SystemClock
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.progress import KafkaProgress
from leyden.reward.adapters import RedisWaitingAttempts, function_runner
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.judging import rule_of
from leyden.reward.core.rules import FunctionRule, Rule
from leyden.reward.core.weighing import default_cap
from leyden.reward.handlers import RewardConfig, RewardHandlers
from leyden.reward.judges.build import build_judging
from leyden.reward.late import LateRewards
from leyden.reward.late_store import RedisLateStates
from leyden.reward.settings import FunctionSettings, RewardSection, RewardSettings
from leyden.reward.sweep import Sweeper
from leyden.reward.topology import CONSUMER_GROUP, PUBLISHES, READERS, subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section
from leyden.state import RedisEvidenceStore, RedisPositions


def build(runtime: Runtime) -> Service:
    """Build the service. Raises `RunFileError` if section `reward:` of the run file is invalid."""
    section = load_section(runtime.settings.run_file, "reward", RewardSection)
    knobs, clock = RewardSettings(), SystemClock()
    kept_s = 86_400 + math.ceil(section.late_horizon_s)
    evidence = RedisEvidenceStore(runtime.redis, runtime.namespace("rollouts"), closed_ttl_s=kept_s)
    waiting = RedisWaitingAttempts(runtime.redis, runtime.namespace("waiting"))
    config = RewardConfig(rulebook(section), section.settle == "live", section.judges)
    judging = build_judging(
        runtime=runtime,
        section=section,
        knobs=knobs,
        evidence=evidence,
        waiting=waiting,
        clock=clock,
        group=CONSUMER_GROUP,
    )
    heartbeat = Heartbeat()
    functions = function_runner(section.functions, heartbeat.beat)
    handlers = RewardHandlers(
        evidence=evidence,
        waiting=waiting,
        publisher=runtime.publisher,
        config=config,
        clock=clock,
        submitter=judging.submitter if judging else None,
        late=_late_rewards(runtime, config.rulebook, kept_s),
        functions=functions,
    )
    progress = KafkaProgress(runtime.kafka, runtime.settings.topic_prefix, READERS)
    sweeper = Sweeper(
        handlers=handlers,
        waiting=waiting,
        reading=progress,
        clock=clock,
        grace_s=section.grace_s,
        interval_s=knobs.sweep_interval_s,
        limit=knobs.sweep_limit,
    )
    positions = RedisPositions(runtime.redis, runtime.namespace("read"))
    return Service(
        subscriptions=subscriptions(handlers, knobs, heartbeat, positions),
        publishes=PUBLISHES,
        before=[functions.start, *([sweeper.hold_off] if config.decides else [])],
        beside=[*([sweeper.run] if config.decides else []), *([judging.worker.run] if judging else [])],
        after=[functions.close, progress.close, *([judging.close] if judging else [])],
        # A replay is finished when no job waits for a judge. A live service is ready even if jobs are waiting.
        ready=judging.waiting if judging and not config.decides else None,
    )


def _late_rewards(runtime: Runtime, rulebook: Rulebook, kept_s: int) -> LateRewards:
    states = RedisLateStates(runtime.redis, runtime.namespace("late"), ttl_s=kept_s)
    return LateRewards(rulebook, states, runtime.publisher)


def rulebook(section: RewardSection) -> Rulebook:
    """The rules of the run file, in this order: emitted, functions, judges, AIR."""
    claimed = tuple(pattern for rule in section.air for pattern in rule.claimed_evaluations)
    emitted: list[Rule] = [section.emitted.leaving(claimed)] if section.emitted else []
    functions = [_function_rule(settings) for settings in section.functions]
    rules = (*emitted, *functions, *map(rule_of, section.judges), *section.air)
    cap = section.intermediate_cap
    return Rulebook(
        rules,
        intermediate_cap=default_cap(rules, section.outcome_scale) if cap is None else cap,
        late_horizon_s=section.late_horizon_s,
    )


def _function_rule(settings: FunctionSettings) -> FunctionRule:
    return FunctionRule(name=settings.rule_name, weight=settings.weight, cap=settings.cap)
