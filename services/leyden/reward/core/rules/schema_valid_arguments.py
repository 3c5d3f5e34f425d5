"""AIR: do the arguments that the model gave to its tools fit the tools' own JSON Schemas?"""

from collections.abc import Iterable
from typing import Any, Literal

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import Field
from referencing import Registry
from referencing.exceptions import Unresolvable

from leyden.events import Evidence, Json, JsonObject
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import CallView, RolloutView, tool_call_ids, tool_calls

NO_REMOTE: Registry[Any] = Registry()
"""Knows no document and fetches none: a schema that an agent sends must not make the service call anybody."""


class SchemaValidArguments(IntermediateRule):
    """One signal per model call that asked for tools with a schema: the mean over its tool calls.

    A tool span whose tool call no model call shows (the agent parsed it out of the text) is judged by itself, when it
    carries the tool's schema. Where there is no schema, or a broken one, there is no signal.
    """

    rule: Literal["schema_valid_arguments"] = "schema_valid_arguments"
    name: str = "schema_valid_arguments"
    valid: float = Field(default=0.1, allow_inf_nan=False)
    invalid: float = Field(default=-0.1, allow_inf_nan=False)

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        seen: set[str] = set()
        for call in view.calls:
            verdicts = _verdicts(call)
            seen |= tool_call_ids(call)
            if verdicts:
                value = sum(self.valid if fits else self.invalid for fits in verdicts) / len(verdicts)
                yield Signal(value, Evidence(kind="call", id=call.call_id), call_id=call.call_id)
        for span in view.tool_spans:
            if span.tool is None or span.tool.call_id in seen or span.tool.parameters_schema is None:
                continue
            if (fits := valid_arguments(span.tool.arguments, span.tool.parameters_schema)) is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(self.valid if fits else self.invalid, evidence, call_id=view.call_that_asked(span))


def valid_arguments(arguments: Json, schema: JsonObject) -> bool | None:
    """Whether `arguments` (JSON text or value) fit `schema`; None when the schema cannot be used."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        return None
    try:
        value = orjson.loads(arguments) if isinstance(arguments, str) else arguments
        Draft202012Validator(schema, registry=NO_REMOTE).validate({} if value is None else value)
    except (orjson.JSONDecodeError, ValidationError):
        return False
    except Unresolvable:
        return None
    return True


def _verdicts(call: CallView) -> list[bool]:
    schemas = _schemas(call.request)
    found: list[bool] = []
    for item in tool_calls(call):
        body = item.get("function")
        if not schemas or not isinstance(body, dict):
            continue
        name = body.get("name")
        if not isinstance(name, str) or name not in schemas:
            found.append(False)  # a tool that was not offered
        elif (schema := schemas[name]) is not None and (
            fits := valid_arguments(body.get("arguments"), schema)
        ) is not None:
            found.append(fits)
    return found


def _schemas(request: JsonObject) -> dict[str, JsonObject | None]:
    """The offered tools' parameter schemas; None for a tool that has none."""
    offered = request.get("tools")
    schemas: dict[str, JsonObject | None] = {}
    for tool in offered if isinstance(offered, list) else []:
        body = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(body, dict) and isinstance(name := body.get("name"), str):
            parameters = body.get("parameters")
            schemas[name] = parameters if isinstance(parameters, dict) else None
    return schemas
