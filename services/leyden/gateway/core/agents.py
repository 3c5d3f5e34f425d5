"""The agent that made a call, as the request names it in headers or baggage."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

NAME_HEADER = "x-leyden-agent"
ROLE_HEADER = "x-leyden-agent-role"
NAME_KEYS = ("leyden.agent.name", "gen_ai.agent.name")
ROLE_KEYS = ("leyden.agent.role",)
MAX_LENGTH = 128
"""Maximum characters of a name or role, which are labels chosen by the caller."""
MAX_BAGGAGE = 8192
"""Maximum bytes of baggage, as in the W3C specification."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Name and role of the agent; None if unknown."""

    name: str | None = None
    role: str | None = None


NOBODY = Agent()
"""An unknown agent."""


def agent_of(name: str | None, role: str | None, baggage: Sequence[str]) -> Agent:
    """The agent by the two headers, else by all `baggage` headers. Malformed values are ignored."""
    members = _members(",".join(baggage)[:MAX_BAGGAGE])
    return Agent(
        _label(name) or _first(members, NAME_KEYS),
        _label(role) or _first(members, ROLE_KEYS),
    )


def _members(baggage: str) -> dict[str, str]:
    """Key → value of a W3C baggage list; the first of two equal keys counts."""
    found: dict[str, str] = {}
    for member in baggage.split(","):
        key, equals, value = member.partition(";")[0].partition("=")
        if equals:
            found.setdefault(key.strip(), unquote(value.strip(), errors="replace"))
    return found


def _first(members: dict[str, str], keys: Sequence[str]) -> str | None:
    return next((label for key in keys if (label := _label(members.get(key)))), None)


def _label(text: str | None) -> str | None:
    """`text` as a label of limited length without control characters; None if empty."""
    printable = "".join(character for character in text or "" if character.isprintable())
    return printable.strip()[:MAX_LENGTH].rstrip() or None
