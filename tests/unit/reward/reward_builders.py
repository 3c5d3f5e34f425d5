"""Events of one attempt, for tests of reward."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from leyden.events import (
    Choice,
    Evaluation,
    Event,
    Json,
    JsonObject,
    ModelCallRecorded,
    RolloutEnded,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    Task,
    ToolCall,
    pack_ints,
)
from leyden.ids import derive
from leyden.reward.core.assess import Assessment, Rulebook, assess
from leyden.reward.core.evidence import AttemptEvidence, stored_item
from leyden.reward.core.rules import FunctionRule, Rule, Signal
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.call import call_one

ROLLOUT = "1e7de" + "b" * 23
T0 = datetime(2026, 1, 1, tzinfo=UTC)
T0_NANO = int(T0.timestamp()) * 10**9
SCHEMA: JsonObject = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


class Called(FunctionRule):
    """A reward function that is called on the spot; the service calls it before it assesses."""

    function: Callable[[RolloutView], Any]

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        return FunctionRule(name=self.name, answer=call_one(self.function, view)).signals(view)


def asking(*tools: tuple[str, str, Json]) -> JsonObject:
    """A message that asks for tools, as (id, name, arguments)."""
    return {
        "role": "assistant",
        "tool_calls": [
            {
                "id": id_,
                "type": "function",
                "function": {"name": n, "arguments": a if isinstance(a, str) else json.dumps(a)},
            }
            for id_, n, a in tools
        ],
    }


def a_call(
    n: int, at_s: float, message: JsonObject | None = None, schema: Json = SCHEMA, **fields: Any
) -> ModelCallRecorded:
    tools: Json = [{"type": "function", "function": {"name": "add", "parameters": schema}}]
    defaults: dict[str, Any] = {
        "event_id": derive("call", ROLLOUT, n),
        "event_time": T0 + timedelta(seconds=at_s),
        "producer": "gateway",
        "call_id": f"call-{n}",
        "rollout_id": ROLLOUT,
        "trace_id": f"{ROLLOUT}0000",
        "route": "/v1/chat/completions",
        "requested_model": "policy",
        "request": {"tools": tools},
        "prompt_token_ids": pack_ints([1, 2]),
        "choices": [
            Choice(index=0, token_ids=pack_ints([3]), message=message or {"role": "assistant", "content": "4"})
        ],
        "started_at": T0 + timedelta(seconds=at_s),
        "latency_s": 0.1,
    }
    return ModelCallRecorded(**(defaults | fields))


def a_span(n: int, at_s: float, kind: SpanKind = SpanKind.TOOL_CALL, **fields: Any) -> SpanRecorded:
    start = T0_NANO + int(at_s * 1e9)
    defaults: dict[str, Any] = {
        "event_id": derive("span", ROLLOUT, n),
        "event_time": T0 + timedelta(seconds=at_s),
        "producer": "ingest",
        "trace_id": f"{ROLLOUT}0000",
        "span_id": f"{n:016x}",
        "rollout_id": ROLLOUT,
        "kind": kind,
        "dialect": "gen_ai",
        "name": "execute_tool add",
        "start_unix_nano": start,
        "end_unix_nano": start + 1000,
        "tool": ToolCall(name="add", call_id=f"t{n}", result="3") if kind is SpanKind.TOOL_CALL else None,
    }
    return SpanRecorded(**(defaults | fields))


def a_score(n: int, value: float | None, name: str = "helpful", derived: bool = False) -> SpanRecorded:
    return a_span(n, 9, SpanKind.EVALUATION, evaluation=Evaluation(name=name, value=value), derived=derived)


def an_end(calls: Iterable[ModelCallRecorded] = (), **fields: Any) -> RolloutEnded:
    defaults: dict[str, Any] = {
        "event_id": derive("ended", ROLLOUT, 0),
        "event_time": T0 + timedelta(seconds=10),
        "producer": "gateway",
        "rollout_id": ROLLOUT,
        "attempt": 0,
        "status": "succeeded",
        "task": Task(task_id="t", input="2+2", metadata={"answer": "4"}),
        "group_id": "g",
        "group_size": 2,
        "call_ids": sorted(call.call_id for call in calls),
        "started_at": T0,
    }
    return RolloutEnded(**(defaults | fields))


def evidence_of(events: Iterable[Event]) -> AttemptEvidence:
    items: dict[str, bytes] = {}
    for event in events:
        if (item := stored_item(event)) is not None:
            items.setdefault(item.item_id, item.value)
    return AttemptEvidence.of(items)


def judged(
    rules: Iterable[Rule], *events: Event, cap: float = 100.0, end: Mapping[str, Any] | None = None
) -> Assessment:
    calls = [event for event in events if isinstance(event, ModelCallRecorded)]
    ended = an_end(calls, **(end or {}))
    evidence = evidence_of([*events, ended])
    settled = settle(ended, evidence)
    assert isinstance(settled, RolloutSettled)
    return assess(Rulebook(tuple(rules), cap), ended, settled, evidence)
