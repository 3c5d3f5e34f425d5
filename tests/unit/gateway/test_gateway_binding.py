"""Which rollout a call belongs to, for every combination of what a request can say about it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import bind
from leyden.ids import AttemptRef, rollout_id_of

REFS = [AttemptRef(rollout_id_of(f"t{n}", 0), n % 3) for n in range(3)]
FOREIGN = "ab" * 16
PARENT = "cd" * 8
some = st.none() | st.sampled_from(REFS)
traces = some.map(lambda ref: ref.trace_id if ref else None) | st.just(FOREIGN)


@given(path=some, key=some, session=some, trace=traces)
def test_the_first_of_url_key_session_and_trace_binds_and_a_bound_key_never_elsewhere(
    path: AttemptRef | None, key: AttemptRef | None, session: AttemptRef | None, trace: str | None
) -> None:
    """The whole rule, said again: no choice here is made by the code that is tested."""
    caller = Caller(attempt=key, project="p")
    header = f"00-{trace}-{PARENT}-01" if trace else None
    asked = path or session
    arguments = (path.trace_id if path else None, caller, header, session.trace_id if session else None)
    if key and asked and key != asked:
        with pytest.raises(Refusal) as info:
            bind(*arguments)
        assert info.value.status == 403
        return
    traced = next((ref for ref in REFS if ref.trace_id == trace), None)
    binding = bind(*arguments)
    assert binding.attempt == (path or key or session or traced)
    assert binding.caller is caller
    assert binding.parent_span_id == (PARENT if trace else None)
    assert binding.trace_id == (trace or (binding.attempt.trace_id if binding.attempt else None))


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=80))
def test_whatever_the_url_and_the_headers_say_the_answer_is_a_binding_or_a_refusal(
    path: str, session: str, traceparent: str
) -> None:
    statuses = {_status(path, traceparent, session), _status(None, traceparent, session)}
    assert statuses <= {200, 400, 404}
    assert bind(None, Caller(), traceparent, None).attempt is None or "1e7de" in traceparent


def test_a_rollout_id_means_its_first_attempt_in_the_url_and_in_the_session_header() -> None:
    first = REFS[1]._replace(attempt=0)
    assert bind(REFS[1].rollout_id, Caller(), None).attempt == first
    assert bind(None, Caller(), None, REFS[1].rollout_id).attempt == first


def test_a_session_header_that_names_no_rollout_is_a_400_and_an_empty_one_is_none() -> None:
    with pytest.raises(Refusal, match="x-leyden-rollout") as info:
        bind(None, Caller(), None, "my-session")
    assert info.value.status == 400
    assert bind(None, Caller(), None, "").attempt is None
    assert bind(REFS[0].trace_id, Caller(), None, "my-session").attempt == REFS[0], "the URL has said it already"


def _status(path: str | None, traceparent: str, session: str) -> int:
    try:
        bind(path, Caller(), traceparent, session)
    except Refusal as refusal:
        return refusal.status
    return 200


def test_the_callers_project_and_key_go_with_the_binding() -> None:
    caller = replace(Caller(), project="p", key_id="k")
    assert bind(None, caller, None).caller.project == "p"
