"""`python -m leyden.trainer`."""

from leyden.service import main
from leyden.trainer.app import build

if __name__ == "__main__":
    main("trainer", build, "Train the policy on credited groups: one optimiser step and one checkpoint per batch.")
