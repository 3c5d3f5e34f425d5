"""Makes OTLP/JSON messages readable in which a value has a wrong type: what can be read is kept.

Only for messages that could not be parsed as they are. A text field with a number or a truth value gets its text; an
attribute whose value cannot be read gets the JSON text of it. Other fields stay as they are or, where `leniently`, go.
"""

import json
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

MAX_DEPTH = 100
"""Nesting that is parsed at most, as protobuf's own limit."""
_ANY = AnyValue.DESCRIPTOR.full_name
_KEY_VALUE = KeyValue.DESCRIPTOR.full_name
WRONG = (ParseError, ValueError, TypeError, RecursionError)
"""What protobuf raises for JSON that is not the message's."""


def parse(value: Any, into: Message) -> None:
    """Parse JSON into `into`. Unknown fields and enum names are ignored, as the OTLP specification requires."""
    if value is not None:
        ParseDict(value, into, ignore_unknown_fields=True, max_recursion_depth=MAX_DEPTH)


def parse_salvaged(value: Any, into: Message, leniently: bool = False) -> bool:
    """Parse `value`, salvaged where it cannot be parsed as it is; returns whether it was salvaged.

    Raises one of `WRONG` if it cannot be read all the same; never if `leniently`, which leaves out unreadable fields.
    """
    try:
        parse(value, into)
    except WRONG:
        into.Clear()
    else:
        return False
    salvaged = _message(value, into.DESCRIPTOR, 0)
    if not leniently:
        parse(salvaged, into)
        return True
    for name, field in salvaged.items() if isinstance(salvaged, dict) else ():
        alone = type(into)()
        try:
            parse({name: field}, alone)
        except WRONG:
            continue
        into.MergeFrom(alone)
    return True


def dumped(value: Any) -> bytes:
    """JSON of a decoded value, also of one nested deeper than orjson writes; "null" for one that nothing writes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        pass
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"null"


def _message(value: Any, kind: Any, depth: int) -> Any:
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return value
    if kind.full_name == _ANY:
        return _any_value(value, depth)
    fields = {field.json_name: field for field in kind.fields} | {field.name: field for field in kind.fields}
    return {key: _field(item, fields[key], depth) if key in fields else item for key, item in value.items()}


def _field(value: Any, field: Any, depth: int) -> Any:
    if field.message_type is not None:
        kind = field.message_type
        if not isinstance(value, list):
            return _message(value, kind, depth + 1)
        kept = [item for item in value if isinstance(item, dict)] if kind.full_name in (_KEY_VALUE, _ANY) else value
        return [_message(item, kind, depth + 1) for item in kept]
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, bool | int | float):
        return dumped(value).decode()
    return value


def _any_value(value: dict[str, Any], depth: int) -> dict[str, Any]:
    """An attribute's value: as it is if it can be read, else salvaged, else its JSON text."""
    kind = AnyValue.DESCRIPTOR
    fields = {field.json_name: field for field in kind.fields} | {field.name: field for field in kind.fields}
    salvaged = {key: _field(item, fields[key], depth) if key in fields else item for key, item in value.items()}
    try:
        parse(salvaged, AnyValue())
    except WRONG:
        inner = next(iter(value.values()), None) if len(value) == 1 else value
        return {"stringValue": inner if isinstance(inner, str) else dumped(inner).decode()}
    return salvaged
