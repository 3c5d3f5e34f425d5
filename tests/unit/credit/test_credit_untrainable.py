"""Credit trains no call whose record says that its tokens came from another distribution, were lost, or saw more."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_support import call, finished, reward
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence, TrimmedCall, pack, unpack
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import ModelCallRecorded, Sampling, Usage, pack_floats
from leyden.events.codec import encode

CALL = call("1", [1, 2], [10, 11, 12], [13])
TRAINED = {"started": 1, "parallel": 1}


def used(recorded: ModelCallRecorded) -> dict[str, int]:
    """How a call is used after credit has read it from its topic, without its texts, and stored it."""
    read = TrimmedCall.model_validate_json(encode(recorded))
    events: Any = finished([read], [reward(1.0)])
    evidence = [unpack(pack(Evidence(event, "t/0/0"))) for event in events]
    return member_of(assemble(evidence), CreditSection()).calls


SHAPES: dict[str, Any] = {
    "top_p": st.floats(0.01, 0.99),
    "top_k": st.integers(1, 100),
    "min_p": st.floats(0.01, 1),
    "presence_penalty": st.floats(0.01, 2),
    "frequency_penalty": st.floats(-2, -0.01),
    "repetition_penalty": st.floats(1.01, 2),
    "shaped_by": st.lists(st.text(max_size=10), min_size=1, max_size=3),
}


@given(temperature=st.floats(0.01, 2), data=st.data())
@pytest.mark.parametrize("name", SHAPES)
def test_a_distribution_shaped_by_more_than_temperature_is_context(name: str, temperature: float, data: Any) -> None:
    sampling = Sampling.model_validate({"temperature": temperature, name: data.draw(SHAPES[name])})
    assert used(CALL.model_copy(update={"sampling": sampling})) == {"shaped": 1}
    plain = Sampling(temperature=temperature, seed=1, max_tokens=3, top_k=0)
    assert used(CALL.model_copy(update={"sampling": plain})) == TRAINED


def test_content_that_token_ids_do_not_carry_is_context() -> None:
    assert used(CALL.model_copy(update={"unseen": ["image_url"]})) == {"unseen_input": 1}


@pytest.mark.parametrize(
    ("usage", "how"),
    [
        (Usage(), TRAINED),
        (Usage(prompt_tokens=2, completion_tokens=4), TRAINED),
        (Usage(prompt_tokens=2, completion_tokens=6), {"lost_tokens": 1}),
        (Usage(prompt_tokens=3, completion_tokens=4), {"lost_tokens": 1}),
        (Usage(prompt_tokens=2), {"lost_tokens": 1}),
    ],
)
def test_tokens_that_the_engine_counted_otherwise_are_context(usage: Usage, how: dict[str, int]) -> None:
    assert used(CALL.model_copy(update={"usage": usage})) == how


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf])
def test_a_choice_with_a_logprob_that_is_no_number_is_not_trained(logprob: float) -> None:
    first, second = CALL.choices
    broken = first.model_copy(update={"logprobs": pack_floats([-0.5, logprob, -0.5])})
    assert used(CALL.model_copy(update={"choices": [broken, second]})) == {"started": 1}
    assert used(CALL.model_copy(update={"choices": [broken]})) == {"no_logprobs": 1}
