"""An assistant's reasoning reaches the chat template by either of the names that templates read it by."""

from typing import Any

import pytest

from leyden.policy.engines.transformers_engine.prompts import render
from leyden.policy.engines.transformers_engine.protocol import Conversation


class Tokenizer:
    """Keeps what its chat template is first given."""

    chat_template = "there is one"

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        self.messages = self.messages or messages
        return "\n".join(message["content"] for message in messages)

    def encode(self, _: str, **__: Any) -> list[int]:
        return []


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_template_finds_reasoning_whatever_it_calls_it(name: str) -> None:
    tokenizer = Tokenizer()
    said = {"role": "assistant", "content": "So.", name: "Hm."}
    render(tokenizer, Conversation.model_validate({"model": "m", "messages": [said]}))
    assert tokenizer.messages == [said | {"reasoning": "Hm.", "reasoning_content": "Hm."}]


def test_a_message_without_reasoning_gets_none() -> None:
    tokenizer = Tokenizer()
    render(tokenizer, Conversation.model_validate({"model": "m", "messages": [{"role": "user", "content": "?"}]}))
    assert tokenizer.messages == [{"role": "user", "content": "?"}]
