"""The run files that users copy from are valid, and what may be chosen can be chosen in one."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.section import CreditSection
from leyden.credit.core.strategies import STRATEGIES
from leyden.reward.settings import RewardSection
from leyden.settings import load_section
from leyden.trainer.settings import TrainerSettings

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SECTIONS: dict[str, type[BaseModel]] = {"reward": RewardSection, "credit": CreditSection, "trainer": TrainerSettings}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_section_of_an_example_says_what_its_service_takes(file: Path) -> None:
    said = yaml.safe_load(file.read_text())
    assert said.keys() <= {*SECTIONS, "policy"}
    for name in said.keys() & SECTIONS.keys():
        section = load_section(file, name, SECTIONS[name])
        assert section.model_fields_set == set(said[name])


def test_a_run_file_can_choose_any_strategy_with_any_advantage_that_it_makes_sense_with(tmp_path: Path) -> None:
    file, chosen = tmp_path / "run.yaml", set()
    for strategy, advantage in product(STRATEGIES, ADVANTAGES):
        made: Any = STRATEGIES[strategy]  # each of them has its own `name`
        if made().conflict(ADVANTAGES[advantage]) is None:
            file.write_text(f"credit: {{strategy: {strategy}, advantage: {advantage}}}\n")
            section = load_section(file, "credit", CreditSection)
            chosen.add((section.strategy.name, section.advantage))
    assert {strategy for strategy, _ in chosen} == set(STRATEGIES)
    assert {advantage for _, advantage in chosen} == set(ADVANTAGES)
