"""The protocol between the service and its workers: frames of JSON. Not pickle, so a worker cannot send code."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import orjson
from pydantic import TypeAdapter

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView

LENGTH_BYTES = 4
MAX_ANSWER_BYTES = 1 << 20
"""Maximum size of a frame from a worker; a longer one is rejected."""
_VIEW = TypeAdapter(RolloutView)
_VIEWS = TypeAdapter(list[RolloutView])


def encode_view(view: RolloutView) -> bytes:
    """The view as JSON; floats are exact."""
    return _VIEW.dump_json(view)


def decode_views(frame: bytes) -> list[RolloutView]:
    """The views in a frame made by `views_frame`."""
    return _VIEWS.validate_json(frame)


def views_frame(encoded: Sequence[bytes]) -> bytes:
    """One frame with views already encoded as JSON."""
    return framed(b"[" + b",".join(encoded) + b"]")


def framed(body: bytes) -> bytes:
    """`body` with its length in front."""
    return len(body).to_bytes(LENGTH_BYTES) + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's body; None at the end of the stream."""
    head = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(head)) if len(head) == LENGTH_BYTES else None


def answer_frame(index: int, answer: Answer) -> bytes:
    """A worker's frame with the answer for view `index` of the frame it got."""
    if answer.failure is None:
        return framed(orjson.dumps({"index": index, "values": answer.values}))
    return framed(orjson.dumps({"index": index, "failure": answer.failure, "message": printable(answer.message)}))


def read_answer(body: bytes) -> tuple[int, Answer]:
    """The index and the answer in a worker's frame. Raises ValueError for an invalid frame.

    The answer is validated again, because the function runs in the worker and may have written the frame itself.
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
    """`text` with everything replaced that UTF-8 cannot encode: a message may contain a lone surrogate."""
    return text.encode(errors="backslashreplace").decode()
