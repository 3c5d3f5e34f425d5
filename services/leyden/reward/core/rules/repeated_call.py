"""AIR rule `repeated_call`: does the agent repeat itself?"""

from collections import defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from leyden.events import Evidence
from leyden.events.masked import has_mask
from leyden.reward.core.calls import CallView, ChoiceView, message_tool_calls
from leyden.reward.core.json_values import canonical
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView

Action = tuple[str, str]
"""A tool's name and arguments; or "" and the text of a response without tool calls."""


class RepeatedCall(IntermediateRule):
    """Detects model calls that repeat an earlier tool call (same tool and arguments) or an earlier response.

    Earlier means: by the same agent and after a different prompt, so several samples of one prompt are no repetition.
    Gives at most one signal per call: for its tool calls if they repeat, else for its text. Tools that no model call
    requests (the agent parsed them from text) are detected by their spans, if these have the arguments.
    """

    rule: Literal["repeated_call"] = "repeated_call"
    name: str = "repeated_call"
    tool_call: float | None = Field(default=-0.1, allow_inf_nan=False)
    """Value for a repeated tool call; null: no signal."""
    answer: float | None = Field(default=-0.1, allow_inf_nan=False)
    """Value for a repeated response without tool calls; null: no signal."""

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        asked_for: set[str] = set()
        earlier: dict[str | None, _Earlier] = defaultdict(_Earlier)
        for call in view.calls:
            choices = [_actions(choice) for choice in call.choices]
            asked_for |= {tool for actions in choices for tool, _ in actions if tool}
            repeated = earlier[view.agent_of_call(call)].repeated_by(call, choices)
            if (value := self._value(repeated)) is not None:
                yield Signal(value, Evidence(kind="call", id=call.call_id), call_id=call.call_id)
        yield from self._in_spans(view, asked_for)

    def _value(self, repeated: set[Action]) -> float | None:
        tools = {tool for tool, _ in repeated}
        if self.tool_call is not None and any(tool and self.wants_tool(tool) for tool in tools):
            return self.tool_call
        return self.answer if "" in tools and not self.tool else None

    def _in_spans(self, view: RolloutView, asked_for: set[str]) -> Iterable[Signal]:
        done: set[tuple[str | None, Action]] = set()
        for span in view.span_index.tools:
            if span.tool is None or span.tool.name in asked_for or span.tool.arguments is None:
                continue
            if has_mask(span.tool.arguments):
                continue  # equal masks are no equal arguments
            action = (view.agent_of_span(span), (span.tool.name, canonical(span.tool.arguments)))
            if action in done and self.tool_call is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(self.tool_call, evidence, call_id=view.call_that_asked(span))
            done.add(action)


class _Earlier:
    """The earlier actions of one agent."""

    def __init__(self) -> None:
        self._prompts: dict[Action, set[bytes]] = defaultdict(set)
        """Action → the prompts after which it was taken, at most two."""

    def repeated_by(self, call: CallView, choices: list[list[Action]]) -> set[Action]:
        """The call's actions that occurred before, after another prompt or in the same choice. Then records all."""
        prompt = _prompt(call)
        found = {
            action
            for actions in choices
            for at, action in enumerate(actions)
            if action in actions[:at] or self._prompts.get(action, set()) - {prompt}
        }
        for action in {action for actions in choices for action in actions}:
            if len(self._prompts[action]) < 2:
                self._prompts[action].add(prompt)
        return found


def _actions(choice: ChoiceView) -> list[Action]:
    """The actions of a choice: its tool calls, or else its text."""
    found: list[Action] = []
    for item in message_tool_calls(choice.message):
        body = item.get("function")
        if isinstance(body, dict) and isinstance(name := body.get("name"), str) and name:
            found.append((name, canonical(body.get("arguments"))))
    text = choice.message.get("content")
    if not found and isinstance(text, str) and text.strip():
        return [("", text.strip())]
    return found


def _prompt(call: CallView) -> bytes:
    asked = canonical({key: call.request.get(key) for key in ("messages", "input", "prompt")})
    return blake2b(asked.encode(), digest_size=16).digest()
