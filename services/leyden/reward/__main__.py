"""`python -m leyden.reward`."""

from leyden.reward.adapters import unusable_functions
from leyden.reward.app import build
from leyden.reward.settings import RewardSection, RewardSettings
from leyden.service import main

if __name__ == "__main__":
    description = "Computes the rewards of finished rollouts."
    section = ("reward", RewardSection)
    main("reward", build, description, environment=RewardSettings, section=section, check=unusable_functions)
