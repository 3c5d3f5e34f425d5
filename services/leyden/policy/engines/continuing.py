"""Token in, token out: a prompt that continues an earlier call reuses that call's tokens. No IO; imports no engine.

An engine renders each prompt from messages. If the text of an earlier response is tokenised again, the tokens may
differ from those sampled. So the gateway sends the tokens of the earlier call and a digest of its rendered prompt
(`leyden_continue` in the body, announced by a header). If the new rendering begins with the earlier one, the history is
unchanged: the prompt is the earlier tokens plus everything after the end of the earlier response's turn. Otherwise the
prompt is used as rendered. A response header says which of the two happened.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

from leyden.engine_face import CONTINUE_FIELD, CONTINUE_HEADER, PROMPT_HEADER, RENDERED_HEADER


@dataclass(frozen=True, slots=True)
class Rendering:
    """Count and digest of a rendered prompt's token ids. Enough to check whether another prompt begins with them."""

    count: int
    digest: str

    @classmethod
    def of(cls, token_ids: Sequence[int]) -> Self:
        """The rendering with these `token_ids`."""
        return cls(len(token_ids), _digest(token_ids))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `<count>:<digest>`. Raises ValueError."""
        count, colon, digest = text.partition(":")
        if not colon or not count.isascii() or not count.isdigit():
            raise ValueError(f"{text[:80]!r} is not <count>:<digest>")
        return cls(int(count), digest)

    def begins(self, token_ids: Sequence[int]) -> bool:
        """Whether `token_ids` begin with this rendering."""
        return len(token_ids) >= self.count and _digest(token_ids[: self.count]) == self.digest

    def __str__(self) -> str:
        return f"{self.count}:{self.digest}"


@dataclass(frozen=True, slots=True)
class EarlierCall:
    """The call that is continued."""

    token_ids: Sequence[int]
    """Its prompt tokens as sent, followed by its response tokens as sampled."""
    rendered: Rendering
    """The rendering of its messages. Differs from its prompt if that call was itself a continuation."""
    truncated: bool = False
    """Its response was cut off by a length limit, so no end-of-turn token was sampled."""


@dataclass(slots=True)
class Continuation:
    """The continuation asked for by one request, and its outcome, which `prompt_of` fills in."""

    earlier: EarlierCall | None
    rendered: Rendering | None = None
    """None until the prompt is rendered; stays None in an engine without support for continuation."""
    continued: bool = False

    def headers(self) -> dict[str, str]:
        """Response headers with the outcome; empty if the engine does not support continuation."""
        if self.rendered is None:
            return {}
        return {PROMPT_HEADER: "continued" if self.continued else "rendered", RENDERED_HEADER: str(self.rendered)}


CURRENT: ContextVar[Continuation | None] = ContextVar("leyden_continue", default=None)
"""The continuation of the request being served."""


def prompt_of(rendered: Sequence[int], ends: Set[int]) -> Sequence[int]:
    """The prompt for the current request: `rendered`, or its continuation. `ends` are the end-of-turn tokens."""
    current = CURRENT.get()
    if current is None:
        return rendered
    current.rendered = Rendering.of(rendered)
    joined = join(rendered, current.earlier, ends) if current.earlier is not None else None
    current.continued = joined is not None
    return rendered if joined is None else joined


def join(rendered: Sequence[int], earlier: EarlierCall, ends: Set[int]) -> list[int] | None:
    """The earlier call's tokens plus the new part of `rendered`; None if the history differs.

    In `rendered`, the earlier response (tokenised again) lies between the earlier rendering and the next end-of-turn
    token. That token belongs to the earlier response, unless it was truncated; then it is part of the new tokens.
    """
    if not earlier.rendered.begins(rendered):
        return None
    start = earlier.rendered.count
    end = next((at for at in range(start, len(rendered)) if rendered[at] in ends), None)
    if end is None:
        return None
    ended = bool(earlier.token_ids) and earlier.token_ids[-1] in ends
    if not ended and not earlier.truncated:
        return None
    return [*earlier.token_ids, *rendered[end + ended :]]


def take_continuation(body: bytes) -> tuple[bytes, Continuation]:
    """Remove the field `leyden_continue` from a request body and parse it. Raises ValueError if missing or invalid."""
    parsed: Any = json.loads(body)
    if not isinstance(parsed, dict) or not isinstance(given := parsed.pop(CONTINUE_FIELD, None), dict):
        raise ValueError(f"header {CONTINUE_HEADER} was sent, but the body has no object {CONTINUE_FIELD}")
    return json.dumps(parsed).encode(), Continuation(_earlier(given) if given else None)


def _earlier(given: dict[str, Any]) -> EarlierCall:
    ids, rendered, truncated = given.get("token_ids"), given.get("rendered"), given.get("truncated", False)
    if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise ValueError(f"{CONTINUE_FIELD}.token_ids must be a list of token ids")
    if not isinstance(rendered, str) or not isinstance(truncated, bool):
        raise ValueError(f"{CONTINUE_FIELD}.rendered must be a string and {CONTINUE_FIELD}.truncated a boolean")
    return EarlierCall(ids, Rendering.parse(rendered), truncated)


def _digest(token_ids: Sequence[int]) -> str:
    return hashlib.blake2b(array("i", token_ids).tobytes(), digest_size=16).hexdigest()
