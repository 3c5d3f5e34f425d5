"""Composition root of reward."""

from leyden.clock import SystemClock
from leyden.reward.adapters import RedisWaitingAttempts, load_function
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.rules import FunctionRule, Rule
from leyden.reward.handlers import Policy, RewardHandlers
from leyden.reward.settings import FunctionSettings, RewardSection, RewardSettings
from leyden.reward.sweep import Sweeper
from leyden.reward.topology import subscriptions
from leyden.service import Runtime, Service
from leyden.settings import load_section
from leyden.state import RedisEvidenceStore


def build(runtime: Runtime) -> Service:
    """The service, ready to run; raises `RunFileError` when the run file's section `reward:` cannot be used."""
    section = load_section(runtime.settings.run_file, "reward", RewardSection)
    knobs, clock = RewardSettings(), SystemClock()
    evidence = RedisEvidenceStore(runtime.redis, runtime.namespace("rollouts"))
    waiting = RedisWaitingAttempts(runtime.redis, runtime.namespace("waiting"))
    policy = Policy(rulebook(section), decides=section.settle == "live", grace_s=section.grace_s)
    handlers = RewardHandlers(evidence, waiting, runtime.publisher, policy, clock)
    sweeper = Sweeper(handlers, waiting, clock, section.grace_s, knobs.sweep_interval_s, knobs.sweep_limit)
    return Service(
        subscriptions=subscriptions(handlers, knobs),
        before=[sweeper.hold_off] if policy.decides else [],
        beside=[sweeper.run] if policy.decides else [],
    )


def rulebook(section: RewardSection) -> Rulebook:
    """The rules that the run file names, in its order: emitted, functions, AIR."""
    emitted: list[Rule] = [section.emitted] if section.emitted else []
    functions = [_function_rule(settings) for settings in section.functions]
    return Rulebook((*emitted, *functions, *section.air), section.intermediate_cap)


def _function_rule(settings: FunctionSettings) -> FunctionRule:
    function = load_function(settings.entry)
    return FunctionRule(name=settings.rule_name, weight=settings.weight, cap=settings.cap, function=function)
