"""How a rollout of the calculator agent is judged, from what was recorded of it: the model's own lines."""

from typing import Any, Protocol

from calculator.tool import calculate, final_answer, tool_call

RIGHT_ANSWER = 1.0
RIGHT_EXPRESSION = 0.2
WELL_FORMED = 0.1


class Task(Protocol):
    """The part of a task that the score needs."""

    @property
    def metadata(self) -> Any: ...


class Rollout(Protocol):
    """The part of a recorded rollout that the score needs: its task, and its model calls in the order of time."""

    @property
    def task(self) -> Any: ...

    @property
    def calls(self) -> Any: ...


def score(rollout: Rollout) -> float:
    """1 for the right final answer, 0.2 for the right expression, 0.1 for a well-formed one, 0 for none."""
    answer = int(rollout.task.metadata["answer"])
    lines = [str(call.choices[0].message.get("content") or "") for call in rollout.calls if call.choices]
    if lines and final_answer(lines[-1]) == answer:
        return RIGHT_ANSWER
    values = [value for line in lines if (value := _value(line)) is not None]
    if answer in values:
        return RIGHT_EXPRESSION
    return WELL_FORMED if values else 0.0


def strict(rollout: Rollout) -> float:
    """1 for the right final answer, 0 for anything else."""
    return 1.0 if score(rollout) == RIGHT_ANSWER else 0.0


def _value(line: str) -> int | None:
    expression = tool_call(line)
    if expression is None:
        return None
    try:
        return calculate(expression)
    except ValueError:
        return None
