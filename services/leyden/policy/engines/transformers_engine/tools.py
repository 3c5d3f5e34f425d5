"""Tool calls in what a model writes, found while it comes. What cannot be read as a call stays text."""

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
"""vLLM's name of a form → transformers' response template of one call. In other forms no calls are found."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call, with its arguments as JSON."""

    name: str
    arguments: str


class ToolCallStream:
    """One answer's text, divided into what is said and what is called."""

    def __init__(self, tokenizer: Any, form: str, tools: Sequence[Json]) -> None:
        self._tokenizer = tokenizer
        self._template = {"start_anchor": OPEN, "fields": {"call": FORMS[form]}} if form in FORMS else None
        self._tools = list(tools)
        self._held = ""
        self.called = 0
        """How many calls were found."""

    def push(self, text: str) -> tuple[str, list[Call]]:
        """Add text; returns what is said for certain, and the calls that are complete now."""
        if self._template is None:
            return text, []
        self._held += text
        said, calls = "", []
        while (start := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, start)
            if end < 0:
                break
            part, self._held = self._held[: end + len(CLOSE)], self._held[end + len(CLOSE) :]
            before, call = self._told(part[:start]), self._read(part[start:])
            said += before if call else part
            calls += [call] if call else []
        certain = start if start >= 0 else len(self._held) - overlap(self._held, OPEN)
        if not self.called or self._held[:certain].strip():
            said, self._held = said + self._held[:certain], self._held[certain:]
        return said, calls

    def flush(self) -> tuple[str, list[Call]]:
        """The rest, at the answer's end: a last call may lack its end mark."""
        rest, self._held = self._held, ""
        start, told = rest.find(OPEN), self._told(rest)
        before = self._told(rest[:start])
        call = self._read(rest[start:] + CLOSE) if start >= 0 else None
        return (before, [call]) if call else (told, [])

    def _told(self, text: str) -> str:
        """Text between calls, less the line breaks that only set them apart."""
        return text if text.strip() or not self.called else ""

    def _read(self, region: str) -> Call | None:
        """The call that a region between the marks is; None for what a model got wrong."""
        try:
            call = self._tokenizer.parse_response(region, self._template, prefix="", tools=self._tools)["call"]
            name, arguments = call["function"]["name"], call["function"]["arguments"]
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        self.called += 1
        return Call(name, json.dumps(arguments, ensure_ascii=False))
