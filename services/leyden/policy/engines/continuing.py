"""Token in, token out: a prompt that extends an earlier call keeps that call's own tokens. Pure; imports no engine.

An engine renders every prompt from its messages, and the text of an earlier answer, tokenised again, need not give the
tokens that were sampled. Who asks therefore says (`leyden_continue` in the body, announced by a header) which tokens
the earlier call had, and what its prompt was rendered to. Where today's rendering begins with that one, history was
not rewritten: the earlier tokens stand for it, and what follows the earlier answer's end of turn is appended. Anywhere
else the prompt is used as it was rendered. The answer's headers say which it was.
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
    """A prompt's token ids as their number and digest: enough to see whether another prompt begins with them."""

    count: int
    digest: str

    @classmethod
    def of(cls, token_ids: Sequence[int]) -> Self:
        """That of `token_ids`."""
        return cls(len(token_ids), _digest(token_ids))

    @classmethod
    def parse(cls, text: str) -> Self:
        """`<count>:<digest>`; raises ValueError."""
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
class Earlier:
    """The call that is extended."""

    token_ids: Sequence[int]
    """Its prompt and its answer, as they were sent and sampled."""
    rendered: Rendering
    """What its messages were rendered to, which is its prompt unless that was continued itself."""
    truncated: bool = False
    """Its answer was cut off by a limit, so that no token ends its turn."""


@dataclass(slots=True)
class Asked:
    """One request's wish; the engine writes down what became of it."""

    earlier: Earlier | None
    rendered: Rendering | None = None
    """None until the engine has rendered the prompt; an engine that cannot continue leaves it so."""
    continued: bool = False

    def headers(self) -> dict[str, str]:
        """What the answer says; nothing where the engine knows nothing of it."""
        if self.rendered is None:
            return {}
        return {PROMPT_HEADER: "continued" if self.continued else "rendered", RENDERED_HEADER: str(self.rendered)}


CURRENT: ContextVar[Asked | None] = ContextVar("leyden_continue", default=None)
"""The wish of the request that is being served."""


def prompt_of(rendered: Sequence[int], ends: Set[int]) -> Sequence[int]:
    """The prompt to use for what was rendered, by the current request's wish. `ends` are the tokens that end a turn."""
    asked = CURRENT.get()
    if asked is None:
        return rendered
    asked.rendered = Rendering.of(rendered)
    joined = join(rendered, asked.earlier, ends) if asked.earlier is not None else None
    asked.continued = joined is not None
    return rendered if joined is None else joined


def join(rendered: Sequence[int], earlier: Earlier, ends: Set[int]) -> list[int] | None:
    """The earlier tokens and what is new in `rendered`; None where `rendered` tells another history.

    The earlier answer, tokenised anew, stands between the earlier rendering and the first token that ends a turn. That
    token is the earlier answer's own last one, unless the answer was truncated: then it is new.
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


def take(body: bytes) -> tuple[bytes, Asked]:
    """The body without the field, and the wish; raises ValueError when there is none, or it cannot be read."""
    parsed: Any = json.loads(body)
    if not isinstance(parsed, dict) or not isinstance(wish := parsed.pop(CONTINUE_FIELD, None), dict):
        raise ValueError(f"{CONTINUE_HEADER} was sent, and the body has no object {CONTINUE_FIELD}")
    return json.dumps(parsed).encode(), Asked(_earlier(wish) if wish else None)


def _earlier(wish: dict[str, Any]) -> Earlier:
    ids, rendered, truncated = wish.get("token_ids"), wish.get("rendered"), wish.get("truncated", False)
    if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise ValueError(f"{CONTINUE_FIELD}.token_ids must be a list of token ids")
    if not isinstance(rendered, str) or not isinstance(truncated, bool):
        raise ValueError(f"{CONTINUE_FIELD} needs `rendered` (text) and may have `truncated` (true or false)")
    return Earlier(ids, Rendering.parse(rendered), truncated)


def _digest(token_ids: Sequence[int]) -> str:
    return hashlib.blake2b(array("i", token_ids).tobytes(), digest_size=16).hexdigest()
