"""What an agent returns or raises, as the gateway is told it."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from leyden.client.outcomes import from_error, from_return, jsonable, timed_out


def test_nothing_returned_is_a_success_without_reward_or_output() -> None:
    assert from_return(None).body(3) == {"status": "succeeded", "span_count": 3}


@pytest.mark.parametrize(("value", "reward"), [(0.5, 0.5), (1, 1.0), (True, 1.0), (False, 0.0), (0, 0.0)])
def test_a_number_returned_is_the_reward(value: Any, reward: float) -> None:
    assert from_return(value).body(None) == {"status": "succeeded", "span_count": None, "reward": reward}


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), Decimal("0.5"), Fraction(1, 2)])
def test_a_number_of_any_class_is_the_reward(value: Any) -> None:
    assert from_return(value).body(None) == {"status": "succeeded", "span_count": None, "reward": 0.5}
    assert jsonable({"score": [value]}) == {"score": [0.5]}


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32(math.nan)])
def test_a_number_that_is_not_finite_is_a_failure(value: float) -> None:
    assert from_return(value).failure_class == "agent_exception"


def test_anything_else_returned_is_the_output() -> None:
    assert from_return({"answer": [1, 2]}).body(None)["output"] == {"answer": [1, 2]}
    assert from_return("text").body(None)["output"] == "text"


def test_what_has_no_json_form_is_sent_as_text() -> None:
    assert jsonable({"when": 1 + 2j}) == {"when": "(1+2j)"}
    assert jsonable({"x": math.nan}) == "{'x': nan}"
    loop: list[Any] = []
    loop.append(loop)
    assert jsonable(loop) == "[[...]]"


def test_an_exception_is_an_agent_exception_with_its_message() -> None:
    outcome = from_error(ValueError("no such page"))
    assert outcome.body(2) == {
        "status": "failed",
        "span_count": 2,
        "failure": {
            "failure_class": "agent_exception",
            "message": "ValueError: no such page",
            "evidence": {"error_type": "ValueError"},
        },
    }
    assert outcome.error_type == "ValueError"


def test_a_long_message_is_cut() -> None:
    assert len(from_error(ValueError("x" * 10_000)).message) == 2000


def test_running_out_of_time_is_a_timeout() -> None:
    assert timed_out(1.5).body(None)["failure"] == {
        "failure_class": "timeout",
        "message": "the agent did not end in 1.5 s",
    }
