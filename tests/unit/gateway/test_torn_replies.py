"""A reply is trained only if its token ids, logprobs and counts agree; whatever an engine sends, it can be recorded."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import unpack_floats, unpack_ints
from leyden.gateway.core.reply import ReplyParts

NO_IDS: list[Any] = [2**31, 2**40, 2**70, -1, None, "7", 7.0, True, [7]]
NO_LOGPROBS: list[Any] = [None, math.nan, math.inf, -math.inf, -9999.0, -1e39, 0.5, 1e39, "-0.5", True, -(10**400), {}]


def probs(values: list[Any]) -> dict[str, Any]:
    return {"content": [{"token": "x", "logprob": value} for value in values]}


def reply(
    ids: list[Any], logprobs: list[Any], counted: int | None = None, prompt: Any = (1, 2, 3), said: int | None = 3
) -> ReplyParts:
    """A reply of one choice, streamed token by token; `counted` and `said` are the engine's counts."""
    parts = ReplyParts("c", 1)
    parts.take({"prompt_token_ids": list(prompt) if isinstance(prompt, tuple) else prompt, "choices": []})
    for at in range(max(len(ids), len(logprobs))):
        choice = {"index": 0, "delta": {}, "token_ids": ids[at : at + 1], "logprobs": probs(logprobs[at : at + 1])}
        parts.take({"choices": [choice]})
    parts.take({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if said is not None:
        parts.take({"usage": {"prompt_tokens": said, "completion_tokens": len(ids) if counted is None else counted}})
    return parts


def test_a_stream_that_lost_a_part_with_ids_and_logprobs_is_torn() -> None:
    parts = reply([30, 31, 32], [-0.5] * 3, counted=6)
    assert parts.torn == "engine: 3 token ids where usage says 6"
    assert parts.outcome(True) == (parts.torn, "torn")


@given(
    tokens=st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(-200, 0)), max_size=12),
    lost=st.integers(0, 12),
    prompt=st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=5),
    missing=st.integers(-2, 2),
)
def test_a_reply_is_whole_exactly_when_the_counts_agree(
    tokens: list[tuple[int, float]], lost: int, prompt: list[int], missing: int
) -> None:
    came = tokens[lost:]
    ids, logprobs = [token for token, _ in came], [logprob for _, logprob in came]
    parts = reply(ids, logprobs, len(tokens), tuple(prompt), len(prompt) + missing)
    assert (parts.torn is None) == (len(came) == len(tokens) and missing == 0)
    assert unpack_ints(parts.choices()[0].token_ids).tolist() == ids


@given(
    good=st.integers(0, 4),
    bad=st.one_of(st.sampled_from(NO_IDS), st.integers(2**31), st.integers(max_value=-1), st.text()),
    where=st.sampled_from(["choice", "prompt"]),
)
def test_what_is_not_a_token_id_tears_the_reply_and_nothing_else(good: int, bad: Any, where: str) -> None:
    ids: list[Any] = [7] * good + [bad]
    parts = reply(ids, [-0.5] * len(ids)) if where == "choice" else reply([7], [-0.5], prompt=ids, said=len(ids))
    assert parts.torn is not None
    assert unpack_ints(parts.choices()[0].token_ids).tolist() == ([] if where == "choice" else [7])


@given(good=st.integers(0, 4), bad=st.one_of(st.sampled_from(NO_LOGPROBS), st.floats(0.01), st.floats(max_value=-9999)))
def test_what_is_not_a_logprob_tears_the_reply_and_nothing_else(good: int, bad: Any) -> None:
    logprobs = [-0.5] * good + [bad]
    parts = reply([7] * len(logprobs), logprobs)
    assert "logprob that is not a number" in (parts.torn or "")
    assert unpack_floats(parts.choices()[0].logprobs).tolist() == []


@pytest.mark.parametrize("logprob", [-200.0, -1e-8, 0, 0.0, -0.0, 1e-7])
def test_small_and_certain_probabilities_are_logprobs(logprob: float) -> None:
    parts = reply([7], [logprob])
    assert parts.torn is None
    assert unpack_floats(parts.choices()[0].logprobs).tolist() == pytest.approx([logprob])


@pytest.mark.parametrize("probs", [{"content": [{"token": "x"}]}, {"token_logprobs": [None]}, {"content": None}, None])
def test_missing_logprobs_tear_the_reply(probs: Any) -> None:
    parts = ReplyParts("c", 1)
    parts.take({"prompt_token_ids": [1], "choices": [{"index": 0, "token_ids": [7], "logprobs": probs}]})
    assert parts.torn is not None


@pytest.mark.parametrize("prompt", [[], None])
def test_a_reply_without_its_prompt_is_torn(prompt: Any) -> None:
    assert reply([7], [-0.5], prompt=prompt).torn == "engine: no prompt_token_ids in the reply"


def test_an_engine_that_sends_no_counts_is_believed() -> None:
    assert reply([7], [-0.5], said=None).torn is None
