"""`python -m leyden.credit`."""

from leyden.credit.app import build
from leyden.credit.core.section import CreditSection
from leyden.credit.settings import CreditSettings
from leyden.service import main

if __name__ == "__main__":
    description = "Turn finished rollouts into training sequences with returns and advantages."
    main("credit", build, description, environment=CreditSettings, section=("credit", CreditSection))
