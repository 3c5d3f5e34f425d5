"""What a broken or hostile exporter may send in each dialect: recorded requests with values, names, ids, times and
shapes that nobody expects. The same random source gives the same bytes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from leyden.events.otlp import CONTENT_TYPE_HEADER, JSON, SIGNAL_HEADER
from leyden.ingest.core.decode import decode
from unit.ingest.otlp_builders import otlp_request, otlp_span

RECORDINGS = Path(__file__).parent / "golden" / "spans"
_WRITTEN: tuple[dict[str, object], ...] = (
    {
        "llm.request.type": "chat", "gen_ai.request.model": "m", "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "hi", "gen_ai.completion.0.content": "ho",
        "gen_ai.completion.0.tool_calls.0.name": "add", "gen_ai.completion.0.tool_calls.0.arguments": "{}",
    },
    {
        "mcp.method.name": "tools/call", "gen_ai.tool.name": "add", "rpc.jsonrpc.error_code": -32602,
        "gen_ai.tool.call.result": '{"content": [{"type": "text", "text": "no"}], "isError": true}',
    },
)  # fmt: skip
"""The dialects of which nothing is recorded."""
_DEEP = 40
_TEXTS = (
    "", "{", "[]", "{}", "null", "NaN", "-0", "9" * 400, "\x00", "\ud7ff\ue000", '"\\ud800"', "[" * 3000, "]" * 300,
    "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, '[{"role":1,"parts":{}}]', '[{"parts":[{"type":"text"}]}]',
    '{"generations":[[{"message":{"kwargs":[]}}]]}', '[[[{"role":"user","content":{}}]]]', '{"messages":{"0":[]}}',
    '[{"role":"tool","tool_calls":[null,{"function":[]},{"function":{"name":{}}}]}]', "x" * 70_000,
)  # fmt: skip
_NUMBERS = (-(2**63), 2**63 - 1, 0, -1)
_FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, -0.0)
_TIMES = (0, 1, 2**63, 2**64 - 1)
_IDS = (b"", b"\x00" * 8, b"\x01", b"\x01" * 8, b"\x01" * 16, b"\xff" * 40)
_ENDS = ("", ".", ".0", ".0.x", ".role", ".0.message.role", "." * 80, ".9" * 80)


def sources() -> dict[str, list[tuple[str, Message]]]:
    """(Signal, request) of every instrumentation's recording; every dialect is among them."""
    found = {path.stem: list(_recorded(path)) for path in sorted(RECORDINGS.glob("*.json"))}
    written = [otlp_span(attributes, span_id=f"{n:016x}") for n, attributes in enumerate(_WRITTEN, 1)]
    return found | {"written": [("traces", otlp_request(*written))]}


def _recorded(path: Path) -> Iterator[tuple[str, Message]]:
    for signal, found in json.loads(path.read_text()).items():
        for one in found:
            decoded = decode(json.dumps(one).encode(), {CONTENT_TYPE_HEADER: JSON, SIGNAL_HEADER: signal})
            yield signal, decoded.logs if signal == "logs" else decoded.traces


def hostile(request: Message, random: Random, changes: int = 6) -> bytes:
    """`request` with some changes to each of its items."""
    changed: Any = type(request)()
    changed.CopyFrom(request)
    for item in _items(changed):
        for _ in range(random.randint(0, changes)):
            _spoil(item, random)
    return bytes(changed.SerializeToString())


def _items(request: Any) -> Iterator[Any]:
    for group in getattr(request, "resource_spans", None) or getattr(request, "resource_logs", ()):
        yield group.resource
        for scope in getattr(group, "scope_spans", None) or getattr(group, "scope_logs", ()):
            yield from getattr(scope, "spans", None) or getattr(scope, "log_records", ())  # type: ignore[misc]


def _spoil(item: Any, random: Random) -> None:
    held = [item.attributes, *(event.attributes for event in getattr(item, "events", ()))]
    attributes = random.choice(held)
    if not attributes or random.random() < 0.1:
        _spoil_fields(item, random)
        return
    one: KeyValue = random.choice(attributes)
    match random.randrange(4):
        case 0 | 1:
            one.value.CopyFrom(_value(random))
        case 2:
            one.key = one.key[: random.randint(0, len(one.key))] + random.choice(_ENDS)
        case _:
            one.value.CopyFrom(random.choice(attributes).value)


def _spoil_fields(item: Any, random: Random) -> None:
    for name, choices in (
        ("trace_id", _IDS), ("span_id", _IDS), ("parent_span_id", _IDS), ("start_time_unix_nano", _TIMES),
        ("end_time_unix_nano", _TIMES), ("time_unix_nano", _TIMES), ("name", _TEXTS), ("event_name", _TEXTS),
    ):  # fmt: skip
        if name in item.DESCRIPTOR.fields_by_name and random.random() < 0.2:
            setattr(item, name, random.choice(choices))
    if "body" in item.DESCRIPTOR.fields_by_name and random.random() < 0.5:
        item.body.CopyFrom(_value(random))


def _value(random: Random, depth: int = 0) -> AnyValue:
    match random.randrange(8):
        case 0:
            return AnyValue(int_value=random.choice(_NUMBERS))
        case 1:
            return AnyValue(double_value=random.choice(_FLOATS))
        case 2:
            return AnyValue(bytes_value=random.randbytes(9))
        case 3:
            return AnyValue(bool_value=True)
        case 4 if depth < 3:
            inner = [_value(random, depth + 1) for _ in range(3)]
            return AnyValue(array_value={"values": inner})  # type: ignore[arg-type]
        case 5:
            deep = AnyValue(string_value="deep")
            for _ in range(random.choice((2, _DEEP))):
                deep = AnyValue(array_value={"values": [deep]})  # type: ignore[arg-type]
            return deep
        case 6:
            return AnyValue()
    return AnyValue(string_value=random.choice(_TEXTS))
