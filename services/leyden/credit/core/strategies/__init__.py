"""Credit strategies by name: how much of a rollout's rewards each of its actions earned.

A package adds one with an entry point of the group `leyden.credit_strategies`: a class under `Strategy`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from leyden.credit.core.strategies.base import Episode, Step, StepCredit, Strategy, episode_of
from leyden.credit.core.strategies.discounted import Discounted
from leyden.credit.core.strategies.gae import Gae
from leyden.credit.core.strategies.identical import Identical
from leyden.credit.core.strategies.step import StepRewards
from leyden.credit.core.strategies.step_group import StepGroup
from leyden.extensions import Extensions, configured, subclass_of

STRATEGIES: Mapping[str, type[Strategy]] = {
    "identical": Identical,
    "discounted": Discounted,
    "step": StepRewards,
    "gae": Gae,
    "step_group": StepGroup,
}
_KNOWN = Extensions("strategy", "leyden.credit_strategies", STRATEGIES, subclass_of(Strategy), "a class under Strategy")


def strategy_of(said: str | Mapping[str, Any] | Strategy) -> Strategy:
    """The strategy that a run file means by a name, or by a name with parameters; raises ValueError for no such."""
    return configured(_KNOWN, said)


StrategySetting = Annotated[SerializeAsAny[Strategy], BeforeValidator(strategy_of)]
"""A field that takes a strategy as a run file says it."""

__all__ = [
    "STRATEGIES",
    "Episode",
    "Identical",
    "Step",
    "StepCredit",
    "Strategy",
    "StrategySetting",
    "episode_of",
    "strategy_of",
]
