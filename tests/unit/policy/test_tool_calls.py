"""Tool calls found in an answer's text, however it is cut into pieces."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.policy.engines.transformers_engine.tools import ToolCallStream

transformers: Any = pytest.importorskip("transformers")
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
XML = (
    "<tool_call>\n<function=add>\n<parameter=a>\n7\n</parameter>\n<parameter=b>\n7\n</parameter>\n</function>\n"
    "</tool_call>"
)
PIECES = ["<tool_call>", CALL, "</tool_call>", "<", " ", "\n", "so", "{"]
NAMELESS = '<tool_call>{"name": 1, "arguments": {}}</tool_call>'


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from engine_support import byte_tokenizer

    return byte_tokenizer()


def read(tokenizer: Any, pieces: list[str], form: str = "hermes") -> tuple[str, list[tuple[str, Any]]]:
    stream = ToolCallStream(tokenizer, form, [ADD])
    parts = [*[stream.push(piece) for piece in pieces], stream.flush()]
    calls = [(call.name, json.loads(call.arguments)) for _, found in parts for call in found]
    return "".join(said for said, _ in parts), calls


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("no call", "no call", []),
        (f"Let me see. {CALL}", "Let me see. ", [("add", {"a": 1})]),
        (f"{CALL}\n{CALL}\n", "", [("add", {"a": 1})] * 2),
        (f"{CALL}\nand so on", "\nand so on", [("add", {"a": 1})]),
        (CALL.removesuffix("</tool_call>"), "", [("add", {"a": 1})]),
        ("a <tool_call> b", "a <tool_call> b", []),
        ("<tool_call>{broken</tool_call> on", "<tool_call>{broken</tool_call> on", []),
        ('<tool_call>{"name": "add"}</tool_call>', '<tool_call>{"name": "add"}</tool_call>', []),
        (NAMELESS, NAMELESS, []),
        (f"{CALL} <tool_call>[]</tool_call>", " <tool_call>[]</tool_call>", [("add", {"a": 1})]),
        ("a < b <tool", "a < b <tool", []),
    ],
)  # fmt: skip
def test_what_can_be_read_is_a_call_and_the_rest_stays_text(
    tokenizer: Any, text: str, said: str, calls: list[Any]
) -> None:
    assert read(tokenizer, [text]) == (said, calls)


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.data())
def test_how_a_text_is_cut_changes_nothing(tokenizer: Any, parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(tokenizer, pieces) == read(tokenizer, [text])


def test_qwens_form_has_its_arguments_typed_by_the_tool(tokenizer: Any) -> None:
    assert read(tokenizer, [f"So: {XML}"], "qwen3_coder") == ("So: ", [("add", {"a": 7, "b": "7"})])


def test_in_a_form_that_is_not_known_nothing_is_a_call(tokenizer: Any) -> None:
    assert read(tokenizer, [CALL], "mistral") == (CALL, [])
