"""A unit test starts no process, uses no socket and does not sleep: one that does fails, and says what to do."""

from collections.abc import Iterator

import pytest

from unit_guard import GUARD


@pytest.fixture(autouse=True)
def no_process_no_socket_no_sleep() -> Iterator[None]:
    with GUARD.watch():
        yield
    if GUARD.refused:
        pytest.fail("; ".join(GUARD.refused), pytrace=False)
