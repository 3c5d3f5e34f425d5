"""What was said in a model call: the messages of its prompt and its answers, as text. Pure; takes any request."""

import json
from collections.abc import Sequence
from typing import Any

from leyden.events import Choice
from leyden.inspect.report import Asked, Said


def prompt_of(request: dict[str, Any]) -> list[Said]:
    """The messages of a recorded request: of chat, or the prompt or input of another route as one message."""
    messages = request.get("messages")
    if not isinstance(messages, list):
        given = next((request[name] for name in ("prompt", "input") if request.get(name) is not None), None)
        if isinstance(given, list) and all(isinstance(one, dict) for one in given):
            messages = given
        else:
            messages = [] if given is None else [{"role": "user", "content": given}]
    instructions = request.get("instructions") or request.get("system")
    before = [{"role": "system", "content": instructions}] if instructions else []
    return [_said(one) for one in [*before, *messages]]


def answer_of(choice: Choice) -> Said:
    """What one choice answered."""
    return _said({"role": "assistant", **choice.message})


def new_from(prompt: Sequence[Said], before: Sequence[Said]) -> int:
    """How many messages at the start of `prompt` are all of `before`; 0 if it does not continue `before`."""
    return len(before) if list(prompt[: len(before)]) == list(before) else 0


def _said(message: object) -> Said:
    if not isinstance(message, dict):
        return Said(role="user", text=_text(message))
    asked = [_asked(one) for one in _list(message.get("tool_calls"))]
    if message.get("type") == "function_call":  # an item of the Responses API
        asked.append(_asked({"id": message.get("call_id"), "function": message}))
    content = message.get("content", message.get("output"))
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return Said(
        role=str(message.get("role") or ("tool" if "output" in message else "assistant")),
        text=_text(content),
        reasoning=reasoning if isinstance(reasoning, str) and reasoning else None,
        tool_calls=asked,
        answers=message.get("tool_call_id") or (message.get("call_id") if "output" in message else None),
    )


def _asked(call: object) -> Asked:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return Asked(id=None, name="?", arguments=json.dumps(call, ensure_ascii=False))
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return Asked(id=call.get("id"), name=str(function.get("name") or "?"), arguments=text)


def _text(content: object) -> str:
    """Text of a message's content; of a part that is not text, its type in brackets."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for part in content if (text := _text(part)))
    if isinstance(content, dict):
        for name in ("text", "content", "output"):
            if isinstance(content.get(name), str | list):
                return _text(content[name])
        return f"[{content.get('type') or 'object'}]"
    return str(content)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
