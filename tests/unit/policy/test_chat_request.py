from typing import Any

import pytest
from pydantic import ValidationError

from leyden.policy.engines.transformers_engine.completions import Answer
from leyden.policy.engines.transformers_engine.protocol import ChatRequest
from leyden.policy.engines.transformers_engine.sequence import Delta


class LetterTokenizer:
    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def request(**options: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "p", "messages": [{"role": "user", "content": "hi"}]} | options)


@pytest.mark.parametrize(
    "option",
    [
        {"frequency_penalty": 0.5},
        {"logit_bias": {"3": 1}},
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "required"},
        {"min_p": 0.1},
    ],
)
def test_an_option_that_would_be_ignored_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="not supported"):
        request(**option)


def test_neutral_and_unknown_options_pass() -> None:
    request(frequency_penalty=0, presence_penalty=0.0, logit_bias=None, tool_choice="auto", user="me", metadata={})


def test_seeds_of_choices_follow_each_other() -> None:
    chat = request(n=3, seed=5)
    assert [chat.sampling(index, 4).seed for index in range(3)] == [5, 6, 7]
    assert request(n=2).sampling(1, 4).seed is None


def test_one_stop_string_is_a_list_of_one() -> None:
    assert request(stop="END").stops == ("END",)
    assert request(stop=["a", ""]).stops == ("a",)


def test_an_answer_keeps_choices_apart_whatever_the_order_of_their_tokens() -> None:
    chat = request(n=2, logprobs=True, return_token_ids=True)
    deltas = [
        Delta(1, 99, -0.5, text="c"),
        Delta(0, 97, -0.1, text="a", finish="length"),
        Delta(1, 100, -0.7, text="d", finish="stop"),
    ]
    body = Answer(chat, [1, 2], LetterTokenizer()).whole(deltas)
    assert [choice["token_ids"] for choice in body["choices"]] == [[97], [99, 100]]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["a", "cd"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "stop"]
    assert [entry["logprob"] for entry in body["choices"][1]["logprobs"]["content"]] == [-0.5, -0.7]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert body["prompt_token_ids"] == [1, 2]


def test_token_ids_and_logprobs_come_only_when_asked_for() -> None:
    body = Answer(request(), [1], LetterTokenizer()).whole([Delta(0, 97, -0.1, text="a", finish="stop")])
    assert "prompt_token_ids" not in body
    assert "token_ids" not in body["choices"][0]
    assert body["choices"][0]["logprobs"] is None
