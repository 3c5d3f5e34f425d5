"""What goes between the service and its workers: frames of JSON. No pickle: a worker's bytes are data, never code."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import orjson
from pydantic import TypeAdapter

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView

LENGTH_BYTES = 4
MAX_ANSWER_BYTES = 1 << 20
"""A longer frame from a worker is no answer."""
_VIEW = TypeAdapter(RolloutView)
_VIEWS = TypeAdapter(list[RolloutView])


def encode_view(view: RolloutView) -> bytes:
    """The view's JSON, floats exact."""
    return _VIEW.dump_json(view)


def decode_views(frame: bytes) -> list[RolloutView]:
    """The views of a frame that `views_frame` made."""
    return _VIEWS.validate_json(frame)


def views_frame(encoded: Sequence[bytes]) -> bytes:
    """One frame of views that are JSON already."""
    return framed(b"[" + b",".join(encoded) + b"]")


def framed(body: bytes) -> bytes:
    """`body` behind its length."""
    return len(body).to_bytes(LENGTH_BYTES) + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's body; None at the end of the stream."""
    head = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(head)) if len(head) == LENGTH_BYTES else None


def answer_frame(index: int, answer: Answer) -> bytes:
    """What a worker says of view `index` of the frame it was given."""
    if answer.failure is None:
        return framed(orjson.dumps({"index": index, "values": answer.values}))
    return framed(orjson.dumps({"index": index, "failure": answer.failure, "message": printable(answer.message)}))


def read_answer(body: bytes) -> tuple[int, Answer]:
    """The index and the answer in a worker's frame; raises ValueError for what is neither.

    Checked again here: the function ran beside the worker's own code and may have written the frame itself.
    """
    found: Any = orjson.loads(body)
    if not isinstance(found, Mapping) or not isinstance(index := found.get("index"), int):
        raise ValueError("a worker's frame is no answer")
    if "failure" in found:
        return index, Answer.failed(FailureKind(found["failure"]), str(found.get("message")))
    if not isinstance(values := found.get("values"), Mapping):
        raise ValueError("a worker's answer has no values")
    return index, Answer.of(values)


def printable(text: str) -> str:
    """`text` as UTF-8 can hold it: a message may quote half a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()
