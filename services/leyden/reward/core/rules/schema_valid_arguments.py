"""AIR rule `schema_valid_arguments`: do tool arguments match the tools' JSON Schemas?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence, Json, JsonObject
from leyden.events.masked import has_mask
from leyden.reward.core.calls import CallView, tool_call_ids, tool_calls
from leyden.reward.core.json_values import fits, text_fits
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView


class SchemaValidArguments(IntermediateRule):
    """Gives one signal per model call that called tools with a schema: the mean over its tool calls.

    A tool span that belongs to no model call (the agent parsed the call from text) gives its own signal if it has the
    tool's schema and its arguments, not masked. Without a usable schema there is no signal.
    """

    rule: Literal["schema_valid_arguments"] = "schema_valid_arguments"
    name: str = "schema_valid_arguments"
    valid: float = Field(default=0.1, allow_inf_nan=False)
    invalid: float = Field(default=-0.1, allow_inf_nan=False)

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        seen: set[str] = set()
        for call in view.calls:
            verdicts = self._verdicts(call)
            seen |= tool_call_ids(call)
            if verdicts:
                value = sum(self.valid if fit else self.invalid for fit in verdicts) / len(verdicts)
                yield Signal(value, Evidence(kind="call", id=call.call_id), call_id=call.call_id)
        for span in view.span_index.tools:
            if span.tool is None or span.tool.call_id in seen or span.tool.parameters_schema is None:
                continue
            if span.tool.arguments is None or has_mask(span.tool.arguments):
                continue
            if (fit := valid_arguments(span.tool.arguments, span.tool.parameters_schema)) is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(self.valid if fit else self.invalid, evidence, call_id=view.call_that_asked(span))

    def _verdicts(self, call: CallView) -> list[bool]:
        schemas = _schemas(call.request)
        found: list[bool] = []
        for item in tool_calls(call) if schemas else ():
            body = item.get("function")
            name = body.get("name") if isinstance(body, dict) else None
            if not isinstance(body, dict) or not self.wants_tool(name if isinstance(name, str) else None):
                continue
            if not isinstance(name, str) or name not in schemas:
                found.append(False)  # the tool was not offered
            elif (schema := schemas[name]) is not None and (
                fit := valid_arguments(body.get("arguments"), schema)
            ) is not None:
                found.append(fit)
        return found


def valid_arguments(arguments: Json, schema: JsonObject) -> bool | None:
    """Whether `arguments` (JSON text or value) match `schema`; None if the schema is unusable."""
    if isinstance(arguments, str):
        return text_fits(arguments, schema)
    return fits({} if arguments is None else arguments, schema)


def _schemas(request: JsonObject) -> dict[str, JsonObject | None]:
    """Tool name → parameter schema of the offered tools; None for a tool without a schema."""
    offered = request.get("tools")
    schemas: dict[str, JsonObject | None] = {}
    for tool in offered if isinstance(offered, list) else []:
        body = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(body, dict) and isinstance(name := body.get("name"), str):
            parameters = body.get("parameters")
            schemas[name] = parameters if isinstance(parameters, dict) else None
    return schemas
