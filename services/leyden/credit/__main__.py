"""`python -m leyden.credit`."""

from leyden.credit.app import build
from leyden.service import main

if __name__ == "__main__":
    main("credit", build, "Turn finished rollouts into training sequences with credit and advantages.")
