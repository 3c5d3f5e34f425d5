"""Blocks of Anthropic's messages: no field is dropped unseen, and a tool's failure reaches the model."""

import typing
from typing import Any

import anthropic.types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.faces.messages_request import BLOCKS, chat_request
from leyden.gateway.core.refusals import Refusal

PNG = {"type": "base64", "media_type": "image/png", "data": "AA=="}
EXAMPLES: dict[str, dict[str, Any]] = {
    "text": {"text": "hi", "citations": None},
    "image": {"source": PNG},
    "document": {"source": {"type": "text", "media_type": "text/plain", "data": "body"}},
    "tool_use": {"id": "t", "name": "f", "input": {}},
    "tool_result": {"tool_use_id": "t", "content": "ok"},
    "thinking": {"thinking": "hm", "signature": ""},
    "redacted_thinking": {"data": "x"},
}
OF_ASSISTANT = ("tool_use", "thinking", "redacted_thinking")


def chat(kind: str, **more: Any) -> Any:
    role = "assistant" if kind in OF_ASSISTANT else "user"
    block = {"type": kind} | EXAMPLES[kind] | more
    return chat_request({"model": "p", "max_tokens": 9, "messages": [{"role": role, "content": [block]}]})["messages"]


def test_every_field_of_the_clients_blocks_is_decided() -> None:
    names = {"document": "Document", "tool_use": "ToolUse", "tool_result": "ToolResult"}
    for kind, fields in BLOCKS.items():
        name = names.get(kind, "".join(map(str.capitalize, kind.split("_"))))
        hints = typing.get_type_hints(getattr(anthropic.types, f"{name}BlockParam"))
        assert hints.keys() - {"type", "cache_control"} == fields, kind


@pytest.mark.parametrize("kind", EXAMPLES)
@given(name=st.text(min_size=1, max_size=80), value=st.booleans() | st.text() | st.just({}))
def test_an_unknown_field_of_a_block_is_refused_by_name(kind: str, name: str, value: Any) -> None:
    assert chat(kind, **{name: None}) if name not in (*BLOCKS[kind], "type") else True
    if name in (*BLOCKS[kind], "type", "cache_control"):
        return
    with pytest.raises(Refusal) as refused:
        chat(kind, **{name: value})
    assert (refused.value.status, refused.value.param) == (400, f"messages.0.content.0.{name[:64]}")


def test_an_unknown_field_of_a_message_is_refused_by_name() -> None:
    for content in ("hi", [{"type": "text", "text": "hi"}]):
        body = {"model": "p", "messages": [{"role": "user", "content": content, "thread_id": "x"}]}
        with pytest.raises(Refusal) as refused:
            chat_request(body)
        assert refused.value.param == "messages.0.thread_id"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no such file", "Error: no such file"),
        ("Error: no such file", "Error: no such file"),
        ("error 7", "error 7"),
        ("", "Error:"),
        (None, "Error:"),
        ([{"type": "text", "text": "no"}], "Error: no"),
        ([{"type": "image", "source": PNG}], None),
    ],
)
def test_the_model_sees_that_a_tool_failed(content: Any, said: str | None) -> None:
    (message,) = chat("tool_result", content=content, is_error=True)
    if said is None:
        assert [part["type"] for part in message["content"]] == ["text", "image_url"]
        assert message["content"][0]["text"] == "Error: "
    else:
        assert message["content"] == said
    for is_error in (False, None):
        (message,) = chat("tool_result", content="fine", is_error=is_error)
        assert message["content"] == "fine"


def test_a_documents_title_and_context_are_a_part_of_what_the_model_sees() -> None:
    (message,) = chat("document", title="Report", context="of 2026")
    assert message["content"] == "Report\n\nof 2026\n\nbody"
