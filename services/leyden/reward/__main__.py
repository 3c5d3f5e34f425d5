"""Command line of the reward service."""

from leyden.reward.app import build
from leyden.reward.settings import RewardSection, RewardSettings
from leyden.service import main

if __name__ == "__main__":
    description = "Turns the evidence of finished rollouts into rewards."
    main("reward", build, description, environment=RewardSettings, section=("reward", RewardSection))
