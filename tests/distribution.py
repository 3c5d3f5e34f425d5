"""How pytest-xdist's workers share the suite: a file's tests stay together, and one file with a big model at a time."""

from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

BIG = (
    "tests/e2e/test_loop.py",
    "tests/frameworks/test_frameworks_real_model.py",
    "tests/integration/test_engines.py",
    "tests/integration/test_policy_service.py",
)
"""Files that run vLLM: gigabytes of memory and every core. One worker runs all of them, first, one after the other."""

ORDER = (
    *BIG,
    "tests/frameworks/",
    "tests/integration/",
    "tests/service/",
    "tests/golden/",
    "tests/unit/",
    "tests/contract/",
)
"""Long files first: at the end both workers are done at about the same time."""


def place(nodeid: str) -> int:
    """Where in `ORDER` a test is."""
    return next((at for at, start in enumerate(ORDER) if nodeid.startswith(start)), len(ORDER))


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests as workers take them; within one place as they were collected."""
    return sorted(items, key=lambda item: place(item.nodeid))


class ByFile(LoadScopeScheduling):
    """Gives a worker whole files in the order of collection; the files of `BIG` are one."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "big" if file in BIG else file
