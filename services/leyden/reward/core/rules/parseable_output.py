"""AIR rule `parseable_output`: is the model's response in the required format?"""

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from leyden.events import Evidence, JsonObject
from leyden.reward.core.calls import CallView, answer_texts
from leyden.reward.core.json_values import fits, parsed, text_fits
from leyden.reward.core.rules.base import FilterName, IntermediateRule, Signal
from leyden.reward.core.view import RolloutView

_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)


class ParseableOutput(IntermediateRule):
    """Gives a signal per response with text: `final` the last one, `every` all (mean over parallel samples).

    A response that only calls tools has no text and gives no signal.
    """

    rule: Literal["parseable_output"] = "parseable_output"
    name: str = "parseable_output"
    filters = frozenset[FilterName]({"agent", "step"})
    which: Literal["final", "every"] = "final"
    json_schema: JsonObject | None = None
    """The JSON Schema that the response must match. If this and `pattern` are null, it must be any JSON."""
    pattern: str | None = None
    """A Python regular expression that the whole response must match, instead of JSON."""
    fenced: bool = False
    """Whether the JSON may be inside a Markdown code fence."""
    parses: float = Field(default=0.1, allow_inf_nan=False)
    fails: float = Field(default=-0.1, allow_inf_nan=False)

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        found = [(call, texts) for call in view.calls if self.wants_call(call, view) and (texts := answer_texts(call))]
        for call, texts in found if self.which == "every" else found[-1:]:
            yield self._signal(call, texts)

    def _signal(self, call: CallView, texts: list[str]) -> Signal:
        value = sum(self.parses if self._parses(text) else self.fails for text in texts) / len(texts)
        return Signal(value, Evidence(kind="call", id=call.call_id), call_id=call.call_id)

    def _parses(self, text: str) -> bool:
        if self.pattern is not None:
            return re.fullmatch(self.pattern, text) is not None
        inner = _FENCE.fullmatch(text) if self.fenced else None
        body = inner.group(1) if inner else text
        return parsed(body)[0] if self.json_schema is None else text_fits(body, self.json_schema) is True

    @model_validator(mode="after")
    def _form_can_be_held_against(self) -> "ParseableOutput":
        if self.pattern is not None and self.json_schema is not None:
            raise ValueError("parseable_output takes a json_schema or a pattern, not both")
        if self.json_schema is not None and fits(None, self.json_schema) is None:
            raise ValueError("json_schema is not a valid JSON Schema, or refers to another document")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern: {error}") from error
        return self
