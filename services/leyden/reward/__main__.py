"""Command line of the reward service."""

from leyden.reward.app import build
from leyden.service import main

if __name__ == "__main__":
    main("reward", build, "Turns the evidence of finished rollouts into rewards.")
