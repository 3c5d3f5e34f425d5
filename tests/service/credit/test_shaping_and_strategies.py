"""Shaping is taken only with a strategy under which it changes no optimal policy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.credit.app import load_credit_section
from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.section import CreditSection, RewardRule, RewardRules, ShapedBy
from leyden.credit.core.strategies import episode_of, strategy_of
from leyden.reward.core.rules.base import Shaping
from leyden.reward.core.shaping import shaping_rewards
from leyden.settings import RunFileError

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/*.yaml"))


def run_file(folder: Path, credit: dict[str, Any], shaping: dict[str, Any] | None) -> Path:
    rule = {"rule": "tool_status", "name": "progress"} | ({"shaping": shaping} if shaping is not None else {})
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"reward": {"air": [{"rule": "budget", "limit": 1}, rule]}, "credit": credit}))
    return path


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"strategy": "step"}, {}, "remove the shaping"),
    ({"strategy": "step"}, {"gamma": 0.5}, "remove the shaping"),
    ({"strategy": "identical"}, {"gamma": 0.95}, "set its gamma to 1"),
    ({}, {"gamma": 0.95}, "set its gamma to 1"),
    ({"strategy": {"name": "discounted", "gamma": 0.9}}, {"gamma": 0.95}, "set its gamma to 0.9"),
    ({"strategy": "gae"}, {"gamma": 0.95}, "set its gamma to 1"),
    ({"strategy": {"name": "step_group", "gamma": 0.95}}, {"gamma": 0.95}, "remove the shaping"),
    ({"agents": [{"name": "a", "strategy": "step"}]}, {}, "remove the shaping"),
]


@pytest.mark.parametrize(("credit", "shaping", "remedy"), REFUSED)
def test_shaping_that_would_change_the_optimal_policy_is_refused_at_the_start(
    tmp_path: Path, credit: dict[str, Any], shaping: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(RunFileError, match=f"run.yaml: reward.air rule progress has shaping .*{remedy}"):
        load_credit_section(run_file(tmp_path, credit, shaping))


@pytest.mark.parametrize(
    ("credit", "shaping"),
    [
        ({"strategy": "step"}, None),
        ({"strategy": "identical"}, {}),
        ({"strategy": {"name": "discounted", "gamma": 0.9}}, {"gamma": 0.9}),
        ({"strategy": {"name": "gae", "gamma": 0.9}}, {"gamma": 0.9}),
        ({"strategy": {"name": "step_group", "gamma": 1.0}}, {"gamma": 1.0}),
    ],
)
def test_shaping_with_the_strategys_own_discount_is_taken(
    tmp_path: Path, credit: dict[str, Any], shaping: dict[str, Any] | None
) -> None:
    assert load_credit_section(run_file(tmp_path, credit, shaping)) == CreditSection.model_validate(credit)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_examples_are_taken(path: Path) -> None:
    assert isinstance(load_credit_section(path), CreditSection)


def test_both_services_have_the_same_default() -> None:
    assert ShapedBy().gamma == Shaping().gamma


STRATEGIES: list[Any] = [
    "identical", "step", {"name": "discounted", "gamma": 0.9}, {"name": "discounted", "gamma": 1.0},
    {"name": "step_group", "gamma": 1.0},
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    said=st.sampled_from(STRATEGIES),
    gamma=st.sampled_from([0.5, 0.9, 1.0]),
    phis=st.lists(st.floats(-1, 1), min_size=1, max_size=5),
)
def test_where_shaping_is_taken_it_adds_to_a_return_what_depends_on_the_state_alone(
    said: Any, gamma: float, phis: list[float]
) -> None:
    """-Phi of the state (0 for a rollout's total), by reward's own function: actions in one state keep their order."""
    strategy = strategy_of(said)
    if CreditSection(strategy=strategy).shaping_conflict(RewardRules(air=[RewardRule(shaping=ShapedBy(gamma=gamma))])):
        return
    shaped = shaping_rewards(phis, gamma)
    zeros = [0.0] * len(shaped)
    with_it, without = (
        [c.return_ for c in strategy.assign_credit([episode_of(own, 1.0)], ADVANTAGES["rloo"])[0]]
        for own in (shaped, zeros)
    )
    added = [one - other for one, other in zip(with_it, without, strict=True)]
    by_state = [0.0] * len(added) if strategy.name == "identical" else [-phi for phi in (0.0, *phis)]
    assert added == pytest.approx(by_state, abs=1e-9)


def test_the_better_outcome_wins_over_the_higher_potential() -> None:
    """Action a: F = +0.1, then -0.1, outcome 0. Action b: outcome 0.05. Under `step` a was preferred."""
    a, b = episode_of([0.1, -0.1], 0.0), episode_of([0.0, 0.0], 0.05)
    preferred = {}
    for said in STRATEGIES:
        strategy = strategy_of(said)
        if strategy.shaping_gamma == 1.0:
            of_a, of_b = strategy.assign_credit([a, b], ADVANTAGES["dr_grpo"])
            preferred[strategy.name] = of_a[0].advantage < of_b[0].advantage
    assert preferred == {"identical": True, "discounted": True, "step_group": True}
    assert strategy_of("step").shaping_gamma is None
