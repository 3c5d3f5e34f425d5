"""Tool calls of a reply as servers really send them. The only place that decides which call a piece belongs to.

In OpenAI's streams each piece has the index of its call, and the first one has id and name. Servers reuse an index,
leave it out, send null, jump, repeat ids and names, send a new id with each piece, or the name in pieces. So an index
is a hint: a named piece with a new id starts a call, and so does a name once the call before it can take no more.
Numbers from a server are only compared, never used as sizes.

Every call has an id that is unique in its reply: the server's, or else one made of the model call's.
"""

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import orjson

from leyden.gateway.core.request import JsonDict
from leyden.ids import derive

MAX_TOOL_CALLS = 1024
"""Maximum number of calls in one choice; a reply with more is malformed."""
OWN_ID_DIGITS = 24
"""With its prefix an id of our own is as long as OpenAI's: some servers refuse ids of more than 40 characters."""


FORMS = {"function": "arguments", "custom": "input"}
"""Kinds of calls, each the name of the field that has the call's name and text; and the name of the text."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one delta says."""

    index: int | None
    id: str | None
    kind: str | None
    form: str
    name: str | None
    text: str
    more: JsonDict
    """Other fields of the delta."""
    said: JsonDict
    """Other fields beside the name and the text."""

    @classmethod
    def of(cls, delta: JsonDict) -> "_Piece":
        """Name and text may stand in the delta itself."""
        form = next((form for form in FORMS if isinstance(delta.get(form), dict)), None)
        inner = delta[form] if form is not None else delta
        words = ("name", FORMS[form or "function"])
        return cls(
            index=_index(delta.get("index")),
            id=_text(delta.get("id")),
            kind=_text(delta.get("type")),
            form=form or "function",
            name=_text(inner.get("name")),
            text=arguments_text(inner.get(words[1])),
            more={key: delta[key] for key in delta if key not in ("index", "id", "type", "name", "arguments", *FORMS)},
            said={key: inner[key] for key in inner if key not in words} if form is not None else {},
        )

    @property
    def opens(self) -> bool:
        """Whether the text is the beginning of a call's arguments, as far as one piece tells."""
        return not self.text.strip() or self.text.lstrip().startswith("{")


@dataclass(slots=True, eq=False)
class _Call:
    """One call so far."""

    number: int
    id: str | None = None
    """As the server sent it first."""
    shown_id: str | None = None
    """As clients and the record have it; set with the first canonical piece."""
    newest_id: str | None = None
    """The last id in its pieces: that of a call which begins without one."""
    kind: str = "function"
    form: str = "function"
    name: str | None = None
    repeats_name: bool = False
    texts: list[str] = field(default_factory=list)
    """The pieces of its arguments."""
    length: int = 0
    """Of them all: telling that a piece is not the whole text needs no copy of it."""
    untold: str = ""
    """The end of `text` that is not yet in a canonical piece."""
    more: JsonDict = field(default_factory=dict)
    said: JsonDict = field(default_factory=dict)
    """Other fields that are not yet in a canonical piece."""

    @property
    def text(self) -> str:
        """Its arguments so far. Costs a copy of them."""
        if len(self.texts) > 1:
            self.texts = ["".join(self.texts)]
        return self.texts[0] if self.texts else ""

    def is_whole(self) -> bool:
        """Whether its arguments are a complete JSON object, so that a name that comes now is another call's."""
        last = self.texts[-1].rstrip() if self.texts else ""
        if last and not last.endswith("}"):
            return False
        text = self.text
        if not text.rstrip().endswith("}"):
            return False
        try:
            return isinstance(orjson.loads(text), dict)
        except orjson.JSONDecodeError:
            return False

    def is_empty(self) -> bool:
        """Whether its arguments have no text yet; an empty object may come before it."""
        return self.text.strip() in ("", "{}")

    def is_begun(self) -> bool:
        """Whether its name and the first text of its arguments are there."""
        return self.name is not None and not self.is_empty()

    def ends_before(self, piece: _Piece, same_index: bool) -> bool:
        """Whether a piece without a new id belongs to another call."""
        if piece.name is None or self.name is None:
            return False
        if piece.name != self.name:
            return not (same_index and not self.text.strip())  # else the name comes in pieces
        return (bool(piece.text.strip()) or not self.repeats_name) and self.is_whole()

    def take(self, piece: _Piece) -> None:
        """Add a piece. An empty object before the arguments' text is not a part of them."""
        is_named = piece.id is not None and piece.id == self.id
        is_same = is_named and len(piece.text) == self.length and piece.text == self.text
        is_again = is_same and self.is_whole() and not self.is_empty()  # asked last: it parses the whole text
        self.id, self.newest_id = self.id or piece.id, piece.id or self.newest_id
        if self.shown_id is None:
            self.kind, self.form = piece.kind or self.kind, piece.form
            self._take_name(piece.name)
            if self.text.strip() == "{}" and piece.text.lstrip().startswith("{"):
                self.texts, self.length, self.untold = [], 0, ""
        elif piece.name is not None:
            self.repeats_name = True
        if not is_again:
            self.texts.append(piece.text)
            self.length += len(piece.text)
            self.untold += piece.text
        self.more |= piece.more
        self.said |= piece.said

    def _take_name(self, name: str | None) -> None:
        self.repeats_name = self.repeats_name or name == self.name is not None
        if name is not None and name != self.name:
            is_all = self.name is None or name.startswith(self.name)
            self.name = name if is_all else f"{self.name}{name}"

    def whole(self, shown_id: str) -> JsonDict:
        """The call as a reply that is not streamed has it."""
        said = {"name": self.name or "", FORMS[self.form]: self.text}
        return {"id": shown_id, "type": self.kind, self.form: said}


class ToolCalls:
    """The tool calls of one choice of a stream. Give it every delta's `tool_calls` in order, then call `end`.

    `origin` names the model call and the choice: ids of calls to which the server gave none are made of it.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        """The newest call of each index that the server sent."""
        self._shown = 0
        """How many calls have a canonical piece."""

    def add(self, deltas: object) -> list[JsonDict]:
        """The pieces in canonical form, which clients merge by index alone.

        Calls are numbered from 0 as they begin. A call's first piece has its id, type and whole name, so it comes with
        the first text of the arguments. Raises ValueError for anything but a list, and for too many calls.
        """
        if not isinstance(deltas, list):
            raise ValueError("`tool_calls` is not a list")
        return [piece for delta in deltas if isinstance(delta, dict) for piece in self._canonical(_Piece.of(delta))]

    def end(self) -> list[JsonDict]:
        """The canonical pieces that were held back, as no more deltas come."""
        pieces = [self._told(call) for call in self._calls if call.shown_id is None or call.untold or call.more]
        self._shown = len(self._calls)
        return pieces

    def whole(self) -> list[JsonDict]:
        """The calls so far."""
        return [call.whole(call.shown_id or self._id_of(call)) for call in self._calls]

    def __len__(self) -> int:
        return len(self._calls)

    def _canonical(self, piece: _Piece) -> list[JsonDict]:
        """The pieces that can be told now: calls are told in order, as some clients put them where they come."""
        call = self._call_of(piece)
        if piece.index is not None:
            self._at[piece.index] = call
        call.take(piece)
        if call.shown_id is not None:
            return [self._told(call)] if call.untold or call.more or call.said else []
        begun = list(takewhile(_Call.is_begun, self._calls[self._shown :]))
        self._shown += len(begun)
        return [self._told(one) for one in begun]

    def _told(self, call: _Call) -> JsonDict:
        """The canonical piece with what is new about a call."""
        piece: JsonDict = {"index": call.number} | call.more
        said = call.said | ({FORMS[call.form]: call.untold} if call.shown_id is None or call.untold else {})
        if call.shown_id is None:
            call.shown_id = self._id_of(call)
            piece |= {"id": call.shown_id, "type": call.kind}
            said |= {"name": call.name or ""}
        call.untold, call.more, call.said = "", {}, {}
        return piece | ({call.form: said} if said else {})

    def _id_of(self, call: _Call) -> str:
        """The call's id; one of our own if the server sent none, or one that an earlier call of the reply has."""
        is_taken = any(other.id == call.id for other in self._calls[: call.number])
        return own_id(self._origin, call.number) if call.id is None or is_taken else call.id

    def _call_of(self, piece: _Piece) -> _Call:
        """The call of a piece; a new one if it begins one."""
        here = self._at.get(piece.index) if piece.index is not None else None
        last = self._calls[-1] if self._calls else None
        if piece.id is not None:
            return self._identified(piece, piece.id, here, last)
        open_ = here or last
        is_new_index = here is None and piece.index is not None
        if open_ is None or (is_new_index and _begins(piece, open_)) or open_.ends_before(piece, here is not None):
            begun = self._begin()
            begun.id = here.newest_id if here is not None and here.newest_id != here.id else None
            return begun
        return open_

    def _identified(self, piece: _Piece, call_id: str, here: _Call | None, last: _Call | None) -> _Call:
        """The call of a piece with an id. `here` has its index; `last` is the newest call."""
        known = next((call for call in reversed(self._calls) if call.id == call_id), None)
        if here is not None and call_id in (here.id, here.newest_id):
            known = here
        if known is not None:
            return self._begin() if self._is_another(piece, known, here) else known
        # An id may come after its call's name; else a new id is a new call, except from servers that make an id for
        # every piece: those send the name in the first one only.
        open_ = here if piece.index is not None else last
        if open_ is None:
            return self._begin()
        if open_.id is None:
            return self._begin() if open_.ends_before(piece, here is not None) else open_
        is_text = bool(piece.text.strip())
        is_over = is_text and open_.is_whole() and not open_.is_empty()
        is_more = not is_over if here is not None else is_text and not piece.opens
        return open_ if piece.name is None and is_more else self._begin()

    def _is_another(self, piece: _Piece, known: _Call, here: _Call | None) -> bool:
        """Whether a piece begins another call although a call with its id is known."""
        if piece.name is None or known.name is None:
            return False
        if piece.name != known.name:
            return known.ends_before(piece, known is here)
        is_new_index = here is None and piece.index is not None and known in self._at.values()
        is_next = known.is_whole() and piece.text != known.text and piece.text.lstrip().startswith("{")
        return piece.opens if is_new_index else is_next and not known.is_empty()

    def _begin(self) -> _Call:
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise ValueError(f"more than {MAX_TOOL_CALLS} tool calls in one choice")
        self._calls.append(_Call(len(self._calls)))
        return self._calls[-1]


def _begins(piece: _Piece, last: _Call) -> bool:
    """Whether a piece with an index that was not seen before, and without an id, begins a call after `last`."""
    return piece.name is not None or (last.is_whole() and not last.is_empty() and bool(piece.text.strip()))


def own_id(origin: str, number: int) -> str:
    """The id of the call with this number in its choice; the same for the same model call and choice."""
    return f"call_{derive('tool-call', origin, number)[:OWN_ID_DIGITS]}"


def whole_calls(calls: object, origin: str) -> list[JsonDict]:
    """The tool calls of a reply that is not streamed, with arguments as text, each with an id of its own.

    Raises ValueError for anything but a list, and for too many calls.
    """
    if not isinstance(calls, list) or len(calls) > MAX_TOOL_CALLS:
        raise ValueError(f"`tool_calls` is not a list of at most {MAX_TOOL_CALLS}")
    seen: set[str] = set()
    whole = []
    for number, call in enumerate(call for call in calls if isinstance(call, dict)):
        call_id = _text(call.get("id"))
        if call_id is None or call_id in seen:
            call_id = own_id(origin, number)
        seen.add(call_id)
        piece = _Piece.of(call)
        said = {"name": piece.name or "", FORMS[piece.form]: piece.text}
        whole.append(piece.more | {"id": call_id, "type": piece.kind or "function", piece.form: piece.said | said})
    return whole


def arguments_text(arguments: object) -> str:
    """A call's arguments as text; some servers send the object itself, or null."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else orjson.dumps(arguments).decode()


def _text(value: Any) -> str | None:
    """A text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def _index(value: Any) -> int | None:
    """A whole number, also as text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
