"""Schemas and patterns that agents send are checked in bounded time, with the result that jsonschema gives."""

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from leyden.events import Json, JsonObject
from leyden.reward.core.json_values import fits
from leyden.reward.core.pattern_cost import COSTLY, matching_ways
from leyden.reward.core.rules import SchemaValidArguments, ToolStatus
from unit.reward.reward_builders import a_call, a_span, asking, judged

A_TEXT = "a" * 40 + "!"
DOUBLING: JsonObject = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
NAMES = [f"n{n}" for n in range(30_000)]
FREEZING: dict[str, tuple[Json, Json]] = {
    "a nested repeat": ({"pattern": "^(a+)+$"}, A_TEXT),
    "alternatives that overlap": ({"pattern": "^(a|a)*$"}, A_TEXT),
    "a repeat of a repeat of a group": ({"pattern": "^((ab?)*c?)*$"}, A_TEXT),
    "many repeats": ({"pattern": ".*" * 12 + "x"}, A_TEXT),
    "a back-reference": ({"pattern": r"^(a*)*\1$"}, A_TEXT),
    "a nested repeat in a lookahead": ({"pattern": "(?=(a+)+$)"}, A_TEXT),
    "names of properties": ({"patternProperties": {"^(a+)+$": {}}}, {A_TEXT: 1}),
    "other properties": (
        {"patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False}, {A_TEXT: 1},
    ),
    "references that double": ({"$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d40": {"type": "integer"}}}, 7),
    "a schema that refers to itself": ({"$ref": "#"}, 7),
    "any of many": ({"items": {"anyOf": [{"const": n} for n in range(2000)]}}, [-1] * 2000),
}  # fmt: skip


@pytest.mark.parametrize("how", FREEZING)
def test_what_would_take_for_ever_has_no_result(how: str) -> None:
    schema, value = FREEZING[how]
    began = time.process_time()
    assert fits(value, {"$comment": how, **schema}) is not True  # type: ignore[dict-item]
    assert time.process_time() - began < 5


def test_thirty_thousand_items_and_names_are_compared_at_once() -> None:
    began = time.process_time()
    assert fits(list(range(30_000)), {"uniqueItems": True}) is True
    assert fits([*range(30_000), 7], {"uniqueItems": True}) is False
    assert fits([{"a": n} for n in range(30_000)], {"uniqueItems": True}) is True
    assert fits({}, {"required": NAMES}) is False
    assert time.process_time() - began < 5


def test_a_call_with_a_freezing_schema_has_no_signal_and_the_other_rules_go_on() -> None:
    schema: JsonObject = {"type": "object", "properties": {"x": {"pattern": "^(a+)+$"}}}
    call = a_call(1, 1, asking(("t1", "add", {"x": A_TEXT})), schema=schema)
    result = judged([SchemaValidArguments(), ToolStatus()], call, a_span(1, 2))
    assert [(r.rule, r.value) for r in result.rewards] == [("tool_status", 0.1)]
    assert result.completed.failed_rules == []


USUAL = [
    r"^[A-Z]{3}-\d{4}$", r"^[^@\s]+@[^@\s]+\.[a-z]+$", r"^\d{4}-\d{2}-\d{2}$", "^(yes|no)$", r"^https?://\S+$",
    r"^(\d{1,3}\.){3}\d{1,3}$", r"^(?=.*[a-z])(?=.*\d).{8,}$", "^[a-z_]+$", "x", "",
]  # fmt: skip
TEXTS = [
    "ABC-1234",
    "a@b.example",
    "2026-01-01",
    "yes",
    "https://example.org/x",
    "10.0.0.1",
    "passw0rd",
    "a_b",
    "",
    "x" * 40,
]


@pytest.mark.parametrize("pattern", USUAL)
@pytest.mark.parametrize("text", TEXTS)
def test_usual_patterns_have_a_result(pattern: str, text: str) -> None:
    assert fits(text, {"pattern": pattern}) is (re.search(pattern, text) is not None)


LEAVES = st.sampled_from(["a", "b", ".", "[ab]", "^", "$", r"\w", "(?:)"])
PATTERNS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2,3}", "*?", "{0,9}"])).map(
            lambda one: f"(?:{one[0]}){one[1]}"
        ),
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        inner.map(lambda one: f"(?={one})"),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=2000)
@given(PATTERNS, st.text("ab!", max_size=30))
def test_a_pattern_that_is_not_costly_is_quick_and_has_the_right_result(pattern: str, text: str) -> None:
    found = fits(text, {"pattern": pattern})
    if found is not None:
        assert found is (re.search(pattern, text) is not None)


@given(st.integers(2, 50), st.sampled_from(["(a+)+", "(a*)*", "(a|b|ab)*", "(?:a?){200}(?:a?){200}"]))
def test_exponential_patterns_are_costly(length: int, pattern: str) -> None:
    assert matching_ways(f"^{pattern}$", 40 + length) == COSTLY


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, -1.0, 0.5])
    | st.sampled_from(["", "a", "1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=6))
def test_unique_items_are_jsonschemas(items: list[Json]) -> None:
    schema: JsonObject = {"uniqueItems": True}
    assert fits(items, schema) is Draft202012Validator(schema).is_valid(items)  # type: ignore[arg-type]
