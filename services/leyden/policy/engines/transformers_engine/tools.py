"""Parses tool calls from a model's output as it streams. Text that is not a valid call stays text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leyden.policy.engines.transformers_engine.text import overlap

Json = dict[str, Any]
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALL = {"name": "{name}", "arguments": "{content}"}
FORMS: dict[str, Json] = {
    "hermes": {"open": OPEN, "close": CLOSE, "content": "json", "transform": {"function": "{content}"}},
    "qwen3_coder": {
        "open_pattern": OPEN + r"\s*<function=(?P<name>[^>\n]+)>",
        "close_pattern": r"</function>\s*" + CLOSE,
        "content": "xml-inline",
        "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"},
        "transform": {"function": _CALL},
    },
}
"""vLLM's name of a tool call format → transformers' response template of one call. Other formats are not parsed."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallStream:
    """Splits the text of one choice into content and tool calls."""

    def __init__(self, tokenizer: Any, form: str, tools: Sequence[Json]) -> None:
        self._tokenizer = tokenizer
        self._template = {"start_anchor": OPEN, "fields": {"call": FORMS[form]}} if form in FORMS else None
        self._tools = list(tools)
        self._held = ""
        self.called = 0
        """Number of calls found so far."""

    def push(self, text: str) -> tuple[str, list[Call]]:
        """Add text. Returns the content that is now final, and the calls that are now complete."""
        if self._template is None:
            return text, []
        self._held += text
        said, calls = "", []
        while (start := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, start)
            if end < 0:
                break
            part, self._held = self._held[: end + len(CLOSE)], self._held[end + len(CLOSE) :]
            before, call = self._content(part[:start]), self._parse(part[start:])
            said += before if call else part
            calls += [call] if call else []
        certain = start if start >= 0 else len(self._held) - overlap(self._held, OPEN)
        if not self.called or self._held[:certain].strip():
            said, self._held = said + self._held[:certain], self._held[certain:]
        return said, calls

    def flush(self) -> tuple[str, list[Call]]:
        """The rest, at the end of the response. The last call may lack its closing tag."""
        rest, self._held = self._held, ""
        start, content = rest.find(OPEN), self._content(rest)
        before = self._content(rest[:start])
        call = self._parse(rest[start:] + CLOSE) if start >= 0 else None
        return (before, [call]) if call else (content, [])

    def _content(self, text: str) -> str:
        """`text`, or "" if it is only whitespace between calls."""
        return text if text.strip() or not self.called else ""

    def _parse(self, region: str) -> Call | None:
        """The call in `region`, which includes its tags; None if it is not a valid call."""
        try:
            call = self._tokenizer.parse_response(region, self._template, prefix="", tools=self._tools)["call"]
            name, arguments = call["function"]["name"], call["function"]["arguments"]
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        self.called += 1
        return Call(name, json.dumps(arguments, ensure_ascii=False))
