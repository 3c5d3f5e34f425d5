"""What shapes the sampled distribution beyond temperature is a closed list, read as engines read it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from leyden.events import Sampling
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Api, as_engines_read, prepare, told
from leyden.gateway.core.sampling import (
    FLOATS,
    FORMS,
    HARMLESS,
    INTEGERS,
    MAX_NAME,
    MAX_NAMES,
    NEUTRAL,
    SHAPING,
    SWITCHES,
    ShapedSampling,
)

ASKED: dict[str, Any] = {"model": "p", "messages": [{"role": "user", "content": "hi"}]}
SHAPED: list[dict[str, Any]] = [
    {"top_p": 0.9},
    {"top_p": "0.9"},
    {"top_k": 20},
    {"top_k": "20"},
    {"top_k": True},
    {"min_p": 0.05},
    {"typical_p": 0.95},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": "1.3"},
    {"presence_penalty": -0.5},
    {"frequency_penalty": 1},
    {"length_penalty": 2},
    {"min_tokens": 5},
    {"logit_bias": {"7": -100}},
    {"bad_words": ["no"]},
    {"allowed_token_ids": [1, 2]},
    {"allowed_token_ids": []},
    {"vllm_xargs": {"a": 1}},
    {"use_beam_search": True},
    {"use_beam_search": "true"},
    {"thinking_token_budget": 10},
    {"of_tomorrow": 0},
    {"Temperature": 2},
    {"best_of": 3},
]
FORCED: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
    {"response_format": {"type": "text", "more": 1}},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "add"}}},
    {"function_call": {"name": "add"}},
    {"structured_outputs": {"regex": "a+"}},
    {"guided_json": {}},
    {"guided_choice": ["a", "b"]},
]
PLAIN: list[dict[str, Any]] = [
    {"top_p": 1},
    {"top_p": "1.0"},
    {"top_k": -1},
    {"top_k": 0},
    {"min_p": 0},
    {"repetition_penalty": 1},
    {"logit_bias": {}},
    {"response_format": {"type": "text"}},
    {"tool_choice": "auto"},
    {"tool_choice": "none"},
    {"use_beam_search": 0},
    {"seed": 3, "n": 2, "stop": ["x"], "max_tokens": 5, "ignore_eos": True, "user": "me", "metadata": {}},
    {"top_p": None, "of_tomorrow": None},
    {"best_of": 1},
    {"best_of": 2, "n": 2},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": False}}, {"type": "function"}, 7]},
]


def train(policy: ShapedSampling, more: dict[str, Any]) -> Any:
    return prepare(ASKED | more, True, policy)


@pytest.mark.parametrize("more", SHAPED, ids=json.dumps)
def test_what_shapes_the_distribution_is_not_sent_or_refused_or_marked(more: dict[str, Any]) -> None:
    (name,) = more
    overridden = train(ShapedSampling.OVERRIDE, more)
    assert (overridden.overridden, overridden.sampling) == ((name,), Sampling())
    assert overridden.body.get(name) == NEUTRAL.get(name)
    with pytest.raises(Refusal, match=name) as refused:
        train(ShapedSampling.REFUSE, more)
    assert (refused.value.status, refused.value.param) == (400, name)
    marked = train(ShapedSampling.MARK, more)
    assert (marked.overridden, marked.sampling.shaped_by, marked.sampling.shaped) == ((), [name], True)
    assert marked.body[name] == as_engines_read(more)[name]


def strict_tool(strict: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | ({} if strict is None else {"strict": strict})}


@given(st.lists(st.sampled_from([None, False, "no", 0, True, "true", "On", 1, [1]]), max_size=4))
def test_tools_whose_arguments_are_forced_into_a_form_are_loosened_or_refused_or_marked(stricts: list[Any]) -> None:
    more = {"tools": [strict_tool(strict) for strict in stricts]}
    is_strict = any(strict in (True, "true", "On", 1, [1]) for strict in stricts)
    overridden, marked = (train(policy, more) for policy in (ShapedSampling.OVERRIDE, ShapedSampling.MARK))
    assert (overridden.overridden, overridden.sampling.shaped) == (("strict",) if is_strict else (), False)
    assert (marked.overridden, marked.sampling.shaped_by) == ((), ["strict"] if is_strict else [])
    assert marked.body["tools"] == more["tools"]
    assert not train(ShapedSampling.MARK, {"tools": overridden.body["tools"]}).sampling.shaped
    assert [tool["function"]["name"] for tool in overridden.body["tools"]] == ["f"] * len(stricts)
    if is_strict:
        with pytest.raises(Refusal, match="strict"):
            train(ShapedSampling.REFUSE, more)


@given(best_of=st.integers(0, 5), n=st.none() | st.integers(0, 5), as_text=st.booleans())
def test_choosing_the_best_of_more_completions_than_are_returned_shapes(
    best_of: int, n: int | None, as_text: bool
) -> None:
    more: dict[str, Any] = {"best_of": str(best_of) if as_text else best_of} | ({} if n is None else {"n": n})
    shapes = (best_of or 1) > (n or 1)
    assert train(ShapedSampling.OVERRIDE, more).overridden == (("best_of",) if shapes else ())
    assert train(ShapedSampling.MARK, more).sampling.shaped_by == (["best_of"] if shapes else [])


@pytest.mark.parametrize("more", FORCED, ids=json.dumps)
def test_a_forced_form_is_served_as_asked_and_marked_since_the_agent_needs_it(more: dict[str, Any]) -> None:
    (name,) = more
    for policy in (ShapedSampling.OVERRIDE, ShapedSampling.MARK):
        prepared = train(policy, more | {"top_p": 0.9})
        assert (prepared.overridden, prepared.sampling.shaped_by) == ((), [name, "top_p"])
        assert (prepared.body[name], prepared.body["top_p"]) == (more[name], 0.9)
    with pytest.raises(Refusal):
        train(ShapedSampling.REFUSE, more)


@pytest.mark.parametrize("more", PLAIN, ids=json.dumps)
@pytest.mark.parametrize("policy", ShapedSampling)
def test_what_leaves_the_distribution_alone_is_sent(policy: ShapedSampling, more: dict[str, Any]) -> None:
    prepared = train(policy, more)
    assert (prepared.overridden, prepared.sampling.shaped) == ((), False)
    assert prepared.body.items() >= as_engines_read(more).items()


@pytest.mark.parametrize("more", [*SHAPED, *FORCED], ids=json.dumps)
@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS])
def test_outside_training_it_is_sent_and_recorded(api: Api, more: dict[str, Any]) -> None:
    prepared = prepare(ASKED | {"prompt": "hi"} | more, False, ShapedSampling.REFUSE, api)
    assert prepared.body.items() >= as_engines_read(more).items()
    assert (prepared.overridden, prepared.sampling.shaped_by) == ((), list(more))


@given(
    name=st.text(min_size=1, max_size=80).filter(lambda name: name not in HARMLESS | SHAPING),
    value=st.one_of(
        st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.none()), st.just({})
    ),
)
def test_a_field_that_the_list_does_not_know_shapes(name: str, value: Any) -> None:
    prepared = train(ShapedSampling.OVERRIDE, {name: value})
    assert (prepared.overridden, name in prepared.body) == (told((name,)), False)
    assert train(ShapedSampling.MARK, {name: value}).sampling.shaped
    with pytest.raises(Refusal):
        train(ShapedSampling.REFUSE, {name: value})


@given(st.lists(st.text(max_size=200), max_size=40))
def test_names_that_callers_choose_are_bounded_and_fit_a_header(names: list[str]) -> None:
    found = told(tuple(names))
    assert len(found) <= MAX_NAMES
    assert all(len(name) <= MAX_NAME and name.isascii() and not set(name) & set(",\r\n ") for name in found)


NUMBERS = st.one_of(st.floats(), st.integers(-(2**63), 2**63), st.booleans())
TEXTS = st.one_of(
    NUMBERS.map(str),
    NUMBERS.map(lambda number: f" {number}\n"),
    st.floats(allow_nan=False, allow_infinity=False).map("{:e}".format),
    st.from_regex(r"[+-]?[0-9_]{1,4}(\.[0-9]{0,3})?(e-?[0-9])?", fullmatch=True),
    st.text(max_size=4),
)


@given(value=st.one_of(NUMBERS, TEXTS), name=st.sampled_from(sorted(FLOATS | INTEGERS | SWITCHES)))
def test_numbers_and_switches_are_read_as_engines_read_them(value: Any, name: str) -> None:
    """vLLM and our engine read requests with pydantic. What it takes, the gateway sends as that value, or refuses."""
    kind: Any = float if name in FLOATS else int if name in INTEGERS else bool
    try:
        engines: Any = TypeAdapter(kind).validate_python(value)
    except ValidationError:
        engines = None
    found = read(name, value)
    if engines is not None and abs(engines) < (float("inf") if kind is float else 2**63):
        floor = 0.01 if name == "temperature" and engines > 0 else engines
        assert found == max(engines, floor) or (found is None and isinstance(value, str) and "_" in value)
    assert type(found) in (kind, type(None))
    orjson.dumps(found)


def read(name: str, value: Any) -> Any:
    """What the gateway sends; None: it refuses by name."""
    try:
        return as_engines_read({name: value})[name]
    except Refusal as refusal:
        return {(400, name): None}[refusal.status, str(refusal.param)]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", float("nan"), "odd", "", [], {}, [0.9], "0,9"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "n"])
def test_what_is_not_a_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(Refusal, match=f"`{name}` must be") as refused:
        prepare(ASKED | {name: value}, False, ShapedSampling.OVERRIDE)
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.parametrize(("asked", "sampled"), [("0.5", 0.5), (1e-9, 0.01), (0.005, 0.01), (0, 0.0), (1, 1.0)])
def test_the_recorded_temperature_is_the_one_that_engines_sample_at(asked: Any, sampled: float) -> None:
    prepared = prepare(ASKED | {"temperature": asked}, True, ShapedSampling.OVERRIDE)
    assert prepared.body["temperature"] == prepared.sampling.temperature == sampled


def test_no_field_is_in_two_tables() -> None:
    assert not HARMLESS & SHAPING
    assert not FORMS.keys() & (FLOATS | INTEGERS | SWITCHES)
