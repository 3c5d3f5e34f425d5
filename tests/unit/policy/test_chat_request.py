import json
from typing import Any

import pytest
from pydantic import ValidationError

from leyden.policy.engines.transformers_engine.chat_answers import ChatAnswers
from leyden.policy.engines.transformers_engine.prompts import PromptError, prompts_of, render
from leyden.policy.engines.transformers_engine.protocol import ChatRequest, CompletionRequest
from leyden.policy.engines.transformers_engine.sequence import Delta
from leyden.policy.engines.transformers_engine.text_answers import TextAnswers


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
        {"min_tokens": 3},
        {"stop_token_ids": [7]},
        {"prompt_logprobs": 1},
    ],
)
def test_an_option_that_would_be_ignored_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="not supported"):
        request(**option)


def test_neutral_and_unknown_options_pass() -> None:
    request(frequency_penalty=0, presence_penalty=0.0, logit_bias=None, tool_choice="auto", user="me", metadata={})


@pytest.mark.parametrize("option", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}])
def test_a_text_completion_refuses_them_too(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="not supported"):
        CompletionRequest.model_validate({"model": "p", "prompt": "hi"} | option)


def test_a_message_is_begun_or_continued() -> None:
    assert request().add_generation_prompt
    assert not request(continue_final_message=True).add_generation_prompt
    with pytest.raises(ValidationError, match="cannot both be set"):
        request(continue_final_message=True, add_generation_prompt=True)


class WordTokenizer:
    """Shows the messages that reach the chat template."""

    chat_template = "one"

    def apply_chat_template(self, messages: list[Any], **options: Any) -> str:
        return json.dumps(messages)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text] + [0] * add_special_tokens


def test_a_template_gets_one_text_and_arguments_as_objects() -> None:
    def calls(*arguments: str) -> list[Any]:
        return [{"id": "c", "function": {"name": "f", "arguments": text}} for text in arguments]

    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": calls('{"x": 1}', "", "{broken", "[1]")},
    ]
    user, assistant = json.loads("".join(map(chr, render(WordTokenizer(), request(messages=messages)))))
    assert user == {"role": "user", "content": "a\nb"}
    assert assistant["content"] == ""
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == [{"x": 1}, {}, "{broken", "[1]"]


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("ab", [[97, 98, 0]]), ([1, 2], [[1, 2]]), (["a", "b"], [[97, 0], [98, 0]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_are_texts_or_token_ids(prompt: Any, tokens: list[list[int]]) -> None:
    asked = CompletionRequest.model_validate({"model": "p", "prompt": prompt})
    assert prompts_of(WordTokenizer(), asked, vocabulary=100) == tokens


@pytest.mark.parametrize("prompt", [[100], [[1], [100]], []])
def test_a_prompt_that_the_model_cannot_read_is_refused(prompt: Any) -> None:
    asked = CompletionRequest.model_construct(model="p", prompt=prompt)
    with pytest.raises(PromptError):
        prompts_of(WordTokenizer(), asked, vocabulary=100)


def test_a_streamed_text_has_offsets_and_its_prompt_once() -> None:
    asked = CompletionRequest.model_validate({"model": "p", "prompt": "x", "logprobs": 1, "return_token_ids": True})
    answers = TextAnswers(asked, [[5, 6]], LetterTokenizer())
    deltas = [
        Delta(index=0, token=97, logprob=-0.1, top=((98, -0.05),), text="a"),
        Delta(index=0, token=99, logprob=-0.2, top=((99, -0.2),), text="c", finish="stop"),
    ]
    first, second = (answers.chunk(delta)["choices"][0] for delta in deltas)
    assert (first["prompt_token_ids"], "prompt_token_ids" in second) == ([5, 6], False)
    assert (first["logprobs"]["text_offset"], second["logprobs"]["text_offset"]) == ([0], [1])
    assert first["logprobs"]["top_logprobs"] == [{"b": -0.05, "a": -0.1}]
    assert [first["token_ids"], second["token_ids"], second["finish_reason"]] == [[97], [99], "stop"]


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
        Delta(index=1, token=99, logprob=-0.5, text="c"),
        Delta(index=0, token=97, logprob=-0.1, text="a", finish="length"),
        Delta(index=1, token=100, logprob=-0.7, text="d", finish="stop"),
    ]
    body = ChatAnswers(chat, [1, 2], LetterTokenizer()).whole(deltas)
    assert [choice["token_ids"] for choice in body["choices"]] == [[97], [99, 100]]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["a", "cd"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "stop"]
    assert [entry["logprob"] for entry in body["choices"][1]["logprobs"]["content"]] == [-0.5, -0.7]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert body["prompt_token_ids"] == [1, 2]


def test_token_ids_and_logprobs_come_only_when_asked_for() -> None:
    body = ChatAnswers(request(), [1], LetterTokenizer()).whole(
        [Delta(index=0, token=97, logprob=-0.1, text="a", finish="stop")]
    )
    assert "prompt_token_ids" not in body
    assert "token_ids" not in body["choices"][0]
    assert body["choices"][0]["logprobs"] is None
