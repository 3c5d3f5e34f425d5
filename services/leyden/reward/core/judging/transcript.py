"""Renders a finished attempt as text for a judge. The order is fixed, and omissions are marked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from leyden.events import Json, JsonObject, SpanRecorded
from leyden.events.joins import unix_nano
from leyden.reward.core.calls import CallView, message_tool_calls, request_messages
from leyden.reward.core.view import RolloutView

Turn = tuple[str, str, str]
"""A message reduced to the parts that all copies of it have in common: role, text, tool calls."""


def blocks_of(view: RolloutView, show_metadata: bool = False) -> list[str]:
    """The attempt as blocks of text: task, conversations (repeated messages only once), other tools, output."""
    story = _Story()
    events: list[tuple[int, int, CallView | SpanRecorded]] = [
        (unix_nano(call.started_at), 0, call) for call in view.calls
    ]
    events += [(span.start_unix_nano, 1, span) for span in view.tool_spans if not view.is_answered(span)]
    for _, _, event in sorted(events, key=lambda item: item[:2]):
        if isinstance(event, CallView):
            story.tell_call(event)
        else:
            story.blocks.append(tool_block(event))
    task = [f"[task]\n{text_of(view.task.input)}"] if view.task.input is not None else []
    known = [f"[known about the task, not shown to the agent]\n{text_of(view.task.metadata)}"]
    output = [f"[output]\n{text_of(view.output)}"] if view.output is not None else []
    return [*task, *(known if show_metadata and view.task.metadata else []), *story.blocks, *output]


def cut(text: str, max_chars: int) -> str:
    """`text`, or its beginning and end with a note of how many characters are omitted between them."""
    if len(text) <= max_chars:
        return text
    head, tail = (max_chars + 1) // 2, max_chars // 2
    return f"{text[:head]}\n[… {len(text) - head - tail} characters left out …]\n{text[len(text) - tail :]}"


def text_of(value: Json) -> str:
    """A JSON value as text; a string is not changed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def messages_of(call: CallView) -> list[JsonObject]:
    """The call's input as chat messages; the prompt of a text completion is one message."""
    messages, prompt = request_messages(call), call.request.get("prompt")
    return messages if messages or prompt is None else [{"role": "user", "content": text_of(prompt)}]


def turn_of(message: JsonObject) -> Turn:
    """The message without the fields that servers and clients add."""
    return str(message.get("role")), _content(message).strip(), _tool_calls(message)


def message_block(message: JsonObject, note: str = "") -> str:
    """One message with its role."""
    role, text, calls = turn_of(message)
    name = message.get("name") or message.get("tool_call_id")
    head = f"[{role}{f' {name}' if isinstance(name, str) else ''}{note}]"
    return "\n".join(part for part in (head, text, calls) if part)


def tool_block(span: SpanRecorded) -> str:
    """A tool's execution, from its span."""
    lines = [f"[tool {span.tool.name if span.tool else span.name}]"]
    if span.tool is not None:
        lines += [f"arguments: {text_of(span.tool.arguments)}", f"result: {text_of(span.tool.result)}"]
    if span.status == "error" or span.error_type:
        lines.append(f"error: {span.error_type or ''} {span.error_message or ''}".rstrip())
    return "\n".join(lines)


@dataclass
class _Story:
    """The blocks so far, and the conversations that a call may continue."""

    blocks: list[str] = field(default_factory=list)
    conversations: list[list[Turn]] = field(default_factory=list)
    last: int | None = None

    def tell_call(self, call: CallView) -> None:
        messages = messages_of(call)
        turns = [turn_of(message) for message in messages]
        number, known = self._longest_known(turns)
        if self.last is not None and number != self.last:
            self.blocks.append(f"[conversation {number + 1}{' goes on' if known else ''}]")
        self.last = number
        self.blocks += [message_block(message) for message in messages[known:]]
        for index, choice in enumerate(call.choices):
            note = f", answer {index + 1} of {len(call.choices)}" if len(call.choices) > 1 else ""
            self.blocks.append(message_block({"role": "assistant", **choice.message}, note))
        if call.error is not None:
            self.blocks.append(f"[the model's endpoint failed]\n{call.error}")
        first = call.choices[0].message if call.choices else None
        told = [*turns, turn_of({"role": "assistant", **first})] if first is not None else turns
        if known:
            self.conversations[number] = told
        else:
            self.conversations.append(told)

    def _longest_known(self, turns: Sequence[Turn]) -> tuple[int, int]:
        """(number, length) of the longest conversation that `turns` begin with; else a new number and 0."""
        known = [(len(c), -n) for n, c in enumerate(self.conversations) if turns[: len(c)] == c]
        length, negated = max(known, default=(0, -len(self.conversations)))
        return -negated, length


def _content(message: JsonObject) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return "" if content is None else text_of(content)


def _part(part: Json) -> str:
    if isinstance(part, dict) and isinstance(text := part.get("text"), str):
        return text
    return f"[{part.get('type', 'part')}]" if isinstance(part, dict) else text_of(part)


def _tool_calls(message: JsonObject) -> str:
    asked = [function for item in message_tool_calls(message) if isinstance(function := item.get("function"), dict)]
    return "\n".join(f"calls {one.get('name')}: {text_of(one.get('arguments'))}" for one in asked)
