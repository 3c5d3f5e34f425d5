"""Finds the earlier call of its attempt that a chat request extends, by the content of its messages. Pure.

A call is stored under the digest of its messages and its answer. A request whose messages begin with those extends it,
whatever form a framework gave the answer: content as text or parts, other spaces in arguments, ids dropped. The engine
then checks that the history is the same: it compares the rendered messages.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import orjson

from leyden.gateway.core.request import JsonDict
from leyden.ids import AttemptRef

MOST_LOOKED_UP = 16
"""Number of assistant messages, from the last one back, for which a call is looked up."""
_HEAD = struct.Struct("<BHH")


@dataclass(frozen=True, slots=True)
class EarlierCall:
    """A call that a later one may extend, with the tokens of its prompt and answer."""

    call_id: str
    token_ids: bytes
    """Token ids of prompt and answer, packed as in the events."""
    rendered: str
    """The engine's digest of its rendered messages."""
    truncated: bool

    def pack(self) -> bytes:
        """The call as bytes, to be stored."""
        call_id, rendered = self.call_id.encode(), self.rendered.encode()
        return _HEAD.pack(self.truncated, len(call_id), len(rendered)) + call_id + rendered + self.token_ids

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """The inverse of `pack`."""
        truncated, call_id_size, rendered_size = _HEAD.unpack_from(packed)
        cuts = (_HEAD.size, _HEAD.size + call_id_size, _HEAD.size + call_id_size + rendered_size, len(packed))
        call_id, rendered, token_ids = (packed[start:end] for start, end in pairwise(cuts))
        return cls(call_id.decode(), token_ids, rendered.decode(), bool(truncated))

    def wish(self) -> JsonDict:
        """The field of the request to the engine."""
        ids = np.frombuffer(self.token_ids, dtype="<i4").tolist()
        return {"token_ids": ids, "rendered": self.rendered, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's messages as digests."""

    digest: bytes
    """Digest of all messages."""
    answered: tuple[bytes, ...]
    """Digests of the messages up to and including each assistant message, the longest first."""

    @classmethod
    def of(cls, messages: object) -> Self:
        """The conversation in a request's `messages`; anything but a list of objects extends nothing."""
        digest, answered = b"", []
        for message in messages if isinstance(messages, list) else []:
            if isinstance(message, dict):
                digest = _extended(digest, message)
                if message.get("role") == "assistant":
                    answered.append(digest)
        return cls(digest, tuple(answered[: -MOST_LOOKED_UP - 1 : -1]))

    def with_answer(self, message: Mapping[str, Any]) -> bytes:
        """The digest under which a call with this answer is stored."""
        return _extended(self.digest, {"role": "assistant"} | dict(message))


def _extended(digest: bytes, message: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(digest + _meaning(message), digest_size=16).digest()


def _meaning(message: Mapping[str, Any]) -> bytes:
    calls = message.get("tool_calls")
    said = [
        str(message.get("role")),
        _content(message.get("content")),
        [_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else [],
    ]
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _content(content: object) -> object:
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _call(call: Mapping[str, Any]) -> Sequence[object]:
    """Name and arguments, without ids, which callers may change."""
    function = call.get("function")
    if not isinstance(function, dict):
        return [None, call]
    arguments = function.get("arguments")
    try:
        return [function.get("name"), orjson.loads(arguments) if isinstance(arguments, str) else arguments]
    except orjson.JSONDecodeError:
        return [function.get("name"), arguments]


@dataclass(frozen=True, slots=True)
class Turn:
    """A call in its attempt's conversation."""

    ref: AttemptRef
    policy: str
    conversation: Conversation
    earlier: EarlierCall | None = None
    """The call that its messages extend."""
    started: bool = False
    """Whether the attempt has earlier calls, if the messages contain an answer."""

    def wish(self) -> JsonDict:
        """The field of the request to the engine."""
        return self.earlier.wish() if self.earlier else {}

    def outcome(self, prompt: str | None) -> str:
        """The result: `first`, `extended`, `forked`, `drifted`, or `unsupported` by the engine.

        `prompt` is the engine's header about it.
        """
        if prompt is None:
            return "unsupported"
        if prompt == "continued":
            return "extended"
        if self.earlier is not None:
            return "drifted"
        return "forked" if self.started and self.conversation.answered else "first"
