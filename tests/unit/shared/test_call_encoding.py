"""The encoder that recorded calls have of their own writes what pydantic's would."""

from datetime import UTC, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from leyden.events import Choice, ModelCallRecorded, Sampling, Usage
from leyden.events.codec import MODEL_CALLS, decode, encode

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
CHOICES = st.builds(
    Choice, index=st.integers(0, 9), token_ids=st.binary(max_size=40), logprobs=st.binary(max_size=40), message=OBJECTS
)
MOMENTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]))
CALLS = st.builds(
    ModelCallRecorded,
    event_id=TEXTS,
    event_time=MOMENTS,
    producer=TEXTS,
    call_id=TEXTS,
    rollout_id=st.none() | TEXTS,
    route=TEXTS,
    requested_model=TEXTS,
    request=OBJECTS,
    sampling=st.builds(Sampling, temperature=NUMBERS, seed=st.none() | st.integers(-9, 9)),
    prompt_token_ids=st.binary(max_size=40),
    choices=st.lists(CHOICES, max_size=2),
    usage=st.builds(Usage, prompt_tokens=st.integers(0, 99)),
    started_at=MOMENTS,
    latency_s=NUMBERS,
    error=st.none() | TEXTS,
)
BY_PYDANTIC = TypeAdapter(ModelCallRecorded)


@settings(max_examples=150)
@given(CALLS)
def test_a_call_is_written_as_pydantic_would_and_read_back_the_same(call: ModelCallRecorded) -> None:
    written = encode(call)
    assert BY_PYDANTIC.validate_json(written) == BY_PYDANTIC.validate_json(BY_PYDANTIC.dump_json(call))
    assert decode(MODEL_CALLS, written) == call
    assert list(BY_PYDANTIC.validate_json(written).__dict__) == list(ModelCallRecorded.model_fields)


def test_of_ordinary_calls_even_the_bytes_are_pydantics() -> None:
    call = ModelCallRecorded(
        event_id="e", event_time="2026-01-02T03:04:05.678Z", producer="gateway", call_id="c", route="/v1/x",
        requested_model="p", request={"messages": [{"role": "user", "content": "é\n"}], "temperature": 0.7, "n": 1},
        prompt_token_ids=b"\xff\xfe\xfd", choices=[Choice(index=0, logprobs=b"\x01", message={"a": None})],
        started_at="2026-01-02T03:04:05Z", latency_s=0.125,
    )  # type: ignore[arg-type]  # fmt: skip
    assert encode(call) == BY_PYDANTIC.dump_json(call)
