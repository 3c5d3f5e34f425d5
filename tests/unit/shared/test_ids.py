"""Ids: derived ones depend on their parts alone, and an attempt's trace id names its rollout."""

from hypothesis import given
from hypothesis import strategies as st

from leyden import ids

attempts = st.integers(0, ids.MAX_ATTEMPTS)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_the_same_parts_give_the_same_id(parts: list[str]) -> None:
    assert ids.derive(*parts) == ids.derive(*parts)
    assert len(ids.derive(*parts)) == 32


def test_where_one_part_ends_matters() -> None:
    assert ids.derive("ab", "c") != ids.derive("a", "bc") != ids.derive("abc")


@given(st.text(), st.integers(0, 1000), attempts)
def test_a_trace_id_leads_back_to_its_attempt(task: str, sample: int, attempt: int) -> None:
    ref = ids.AttemptRef(ids.rollout_id_of(task, sample), attempt)
    assert len(ref.trace_id) == 32
    assert ids.attempt_of_trace(ref.trace_id) == ref
    assert ids.parse_traceparent(f"00-{ref.trace_id}-{'a' * 16}-01") == (ref.trace_id, "a" * 16)


def test_a_rollout_id_alone_means_its_first_attempt() -> None:
    rollout = ids.new_rollout_id()
    assert ids.is_rollout_id(rollout)
    assert ids.attempt_of_trace(rollout) == (rollout, 0)


def test_foreign_traces_and_broken_headers_name_nothing() -> None:
    assert ids.attempt_of_trace("4bf92f3577b34da6a3ce929d0e0e4736") is None
    for header in (
        None,
        "",
        "00-xyz",
        "01-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
    ):
        assert ids.parse_traceparent(header) is None
