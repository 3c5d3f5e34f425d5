"""`python -m leyden.trainer`."""

from leyden.service import main
from leyden.trainer.app import build

if __name__ == "__main__":
    main("trainer", build, "Learn from credited groups: one optimiser step per batch, one checkpoint per step.")
