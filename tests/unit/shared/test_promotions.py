"""A promotion never lowers the version, whatever a registry that was stopped, or reads again, still publishes."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from leyden.events import PolicyPromoted
from leyden.events.promotions import Promotion


def promoted(version: int, producer: str = "registry") -> PolicyPromoted:
    return PolicyPromoted(
        event_id=f"{producer}-{version}", event_time=datetime(2030, 1, 1, tzinfo=UTC), producer=producer, policy="p",
        version=version,
    )  # fmt: skip


def after(*events: PolicyPromoted) -> int:
    found = Promotion()
    for event in events:
        found.add(event)
    return found.version


@given(st.lists(st.integers(1, 30), min_size=1))
def test_whatever_registries_publish_in_whatever_order_the_newest_version_counts(versions: list[int]) -> None:
    assert after(*map(promoted, versions)) == max(versions)


def test_a_rollback_lasts_until_the_registry_promotes_a_newer_version() -> None:
    back = promoted(3, "operator")
    assert after(promoted(8), back) == 3
    assert after(promoted(8), back, promoted(5), promoted(8)) == 3, "a late registry does not undo it"
    assert after(promoted(8), back, promoted(9)) == 9


def test_nothing_promoted_is_version_0() -> None:
    assert after() == 0
