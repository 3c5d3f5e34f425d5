"""`leyden inspect` cannot import credit, so it says by itself why a call is no action: both must always agree."""

from hypothesis import given, settings
from hypothesis import strategies as st

import command_support as s
from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import RecordedCall
from leyden.events import Choice, ModelCallRecorded, Sampling, pack_floats, pack_ints
from leyden.inspect.why import call_reason

SAID = {
    Context.ERROR: "it was answered by an error",
    Context.NO_POLICY: "its model is not trained",
    Context.NO_VERSION: "the engine did not say which version answered",
    Context.GREEDY: "greedy: at temperature 0 the action had no probability",
    Context.NO_TOKENS: "its token ids are missing",
    Context.NO_LOGPROBS: "it has no logprob for each token",
}
tokens = st.lists(st.integers(0, 9), max_size=2)
choices = st.builds(
    lambda ids, logprobs: Choice(index=0, token_ids=pack_ints(ids), logprobs=pack_floats(logprobs)),
    tokens,
    st.lists(st.just(-0.5), max_size=2),
)
calls = st.builds(
    lambda **fields: s.call("c", s.A, [1], [2], [s.ASK], s.ANSWER, **fields),
    error=st.none() | st.just("502"),
    policy=st.none() | st.just("p"),
    policy_version=st.none() | st.just(1),
    sampling=st.sampled_from([0.0, 1.0]).map(lambda temperature: Sampling(temperature=temperature)),
    prompt_token_ids=tokens.map(pack_ints),
    choices=st.lists(choices, max_size=2),
)


@settings(max_examples=300)
@given(calls)
def test_inspect_gives_the_reason_that_credit_has(call: ModelCallRecorded) -> None:
    decided = actions_of(RecordedCall(call, "model-calls.v1/0/0"), None)
    assert call_reason(call) == (SAID[decided] if isinstance(decided, Context) else None)
