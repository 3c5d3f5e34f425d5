"""Base class of graders (reward functions with parameters), and helpers that find answer and reference in a rollout."""

import json
import re
from abc import abstractmethod
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from leyden.events import Json
from leyden.reward.core.answer import Result
from leyden.reward.core.view import RolloutView

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


class BrokenReferenceError(ValueError):
    """The task's reference is invalid. The grader fails, which is not a reward of 0."""


class Grader(BaseModel):
    """A grader; its fields are its parameters. Returns None if the task has no reference, raises if it is invalid."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    isolated: ClassVar[bool] = True
    """Whether it runs in a worker process by default."""

    grader: str
    """Name of the grader."""
    given: str = "answer"
    """Location of the agent's answer: `answer` (the output, or else the text of the last response) or a path (`at`)."""

    @property
    def longest_s(self) -> float | None:
        """Upper limit of its running time, in seconds, from its own settings; None if they set none."""
        return None

    @abstractmethod
    def __call__(self, view: RolloutView) -> Result:
        """The rollout's reward, or None."""


def at(view: RolloutView, path: str) -> Json:
    """The value at `path` in the rollout: `answer`, `output`, `text`, `input` or `metadata`, followed by keys and
    indices, each after a dot (`metadata.tests.0`). None if there is no such value.
    """
    first, *rest = path.split(".")
    found: Json
    match first:
        case "answer":
            found = view.output if view.output is not None else view.final_text
        case "output":
            found = view.output
        case "text":
            found = view.final_text
        case "input":
            found = view.task.input
        case "metadata":
            found = dict(view.task.metadata)
        case _:
            raise BrokenReferenceError(f"{path!r} begins with none of answer, output, text, input, metadata")
    for key in rest:
        if isinstance(found, dict):
            found = found.get(key)
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found


def as_text(value: Json) -> str | None:
    """A string unchanged, None unchanged, anything else as JSON."""
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def code_in(text: str) -> str:
    """The last fenced code block of a Markdown text; the whole text if there is none."""
    blocks: list[str] = _FENCE.findall(text)
    return blocks[-1] if blocks else text
