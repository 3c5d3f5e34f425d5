"""`python -m leyden.trainer`."""

from leyden.service import main
from leyden.trainer.app import build
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

if __name__ == "__main__":
    description = "Train the policy on credited groups: one optimiser step and one checkpoint per batch."
    main("trainer", build, description, environment=TrainerEnvironment, section=("trainer", TrainerSettings))
