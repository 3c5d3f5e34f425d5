"""What a grader is: a reward function with parameters. And how it finds the answer and the reference in a rollout."""

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
    """The task's own reference cannot be graded against: the grader fails, nobody gets a 0 for it."""


class Grader(BaseModel):
    """A grader is its own settings. It gives None when the task has no reference, and raises when that is broken."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    isolated: ClassVar[bool] = True
    """Whether it runs in a worker process unless the run file says otherwise."""

    grader: str
    """Which grader of `GRADERS` it is."""
    given: str = "answer"
    """Where the agent's answer is: `answer` (the output or, without one, the last answer's text) or a path (`at`)."""

    @property
    def longest_s(self) -> float | None:
        """How long it may take by its own settings; None when it has no say in that."""
        return None

    @abstractmethod
    def __call__(self, view: RolloutView) -> Result:
        """The rollout's reward."""


def at(view: RolloutView, path: str) -> Json:
    """What is at `path` in the rollout: `answer`, `output`, `text`, `input` or `metadata`, then keys and indices after
    dots (`metadata.tests.0`); None when there is nothing.
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
    """A text as it is, anything else as JSON; None stays None."""
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def code_in(text: str) -> str:
    """The last fenced block of a Markdown text, or all of a text without one."""
    blocks: list[str] = _FENCE.findall(text)
    return blocks[-1] if blocks else text
