"""A question to a judge, and the parser of its response. Text around the JSON is ignored; numbers are validated."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import orjson

from leyden.events import JsonObject
from leyden.ids import derive

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


class MalformedAnswerError(ValueError):
    """The response is invalid. The message says why, and is sent to the judge with the retry."""


@dataclass(frozen=True)
class Opinion:
    """A score and its explanation."""

    score: float
    explanation: str = ""


@dataclass(frozen=True)
class ChatRequest:
    """A request to an endpoint."""

    model: str
    messages: tuple[JsonObject, ...]
    schema: JsonObject
    """JSON Schema of the response."""
    parameters: JsonObject = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Cache key: a hash of model, messages, schema and parameters, but not of the URL."""
        content = [self.model, list(self.messages), self.schema, self.parameters]
        return derive("chat", orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode())


@dataclass(frozen=True)
class Question:
    """A request, and `read`, which parses its response to opinions and raises `MalformedAnswerError`."""

    request: ChatRequest
    read: Callable[[str], list[Opinion]]

    def again(self, answer: str, error: MalformedAnswerError) -> "Question":
        """The question to send after a malformed `answer`, with the error."""
        said: JsonObject = {"role": "assistant", "content": answer}
        told: JsonObject = {
            "role": "user",
            "content": f"That cannot be used: {error}. Answer once more, with the JSON object alone.",
        }
        return replace(self, request=replace(self.request, messages=(*self.request.messages, said, told)))


def read_score(text: str, scale: tuple[float, float]) -> list[Opinion]:
    """Parse `{"explanation": …, "score": …}` to one opinion."""
    return [_opinion(_object_with("score", text), scale)]


def read_scores(text: str, count: int) -> list[Opinion]:
    """Parse the opinions on candidates 1 to `count`, in that order."""
    items = _object_with("candidates", text)["candidates"]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise MalformedAnswerError("candidates is not a list of objects")
    found = {str(item.get("candidate")): _opinion(item, (0.0, 1.0)) for item in items if isinstance(item, dict)}
    wanted = [str(number) for number in range(1, count + 1)]
    if len(items) != count or set(found) != set(wanted):
        raise MalformedAnswerError(f"candidates 1 to {count} must each have one score")
    return [found[number] for number in wanted]


def _opinion(item: JsonObject, scale: tuple[float, float]) -> Opinion:
    score, explanation = item.get("score"), item.get("explanation")
    try:
        value = float(score) if isinstance(score, int | float | str) and not isinstance(score, bool) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not scale[0] <= value <= scale[1]:
        raise MalformedAnswerError(f"score is {score!r}, not a number from {scale[0]:g} to {scale[1]:g}")
    return Opinion(value, explanation if isinstance(explanation, str) else "")


def _object_with(key: str, text: str) -> JsonObject:
    """The last JSON object in `text` that has `key`; other text is ignored."""
    found = [item for item in _objects(_THOUGHTS.sub("", text)) if key in item]
    if not found:
        raise MalformedAnswerError(f"there is no JSON object with {key!r} in it")
    return found[-1]


def _objects(text: str) -> Iterator[JsonObject]:
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            item, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            if isinstance(item, dict):
                yield item
        at = text.find("{", end)
