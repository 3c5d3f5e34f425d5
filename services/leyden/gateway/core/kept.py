"""Responses that are kept for later requests: what is stored of one, and a request with its conversation. Pure.

Items are stored once under the digest of their content, and a response as the digests of its conversation. So a
conversation that grows by two items a turn takes the space of its items, whether a client sends all of them every time
or refers to the last response.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from leyden.gateway.core.faces.responses_request import messages_of
from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Binding, JsonDict

PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""Beginnings of item ids by type; "item" for others."""
AMBIGUOUS = b""
"""Stored for an id that two items of one conversation have."""
MAX_ID = 256
"""Longest id that is looked up."""
LISTED, MOST_LISTED = 20, 100
"""Items of a page: by default, and at most."""


def owner_of(binding: Binding) -> str:
    """Who may read a response: the attempt and the key that made it, and nobody else."""
    attempt, caller = binding.attempt, binding.caller
    return f"{attempt.trace_id if attempt else 'none'}:{_key(caller)}"


def _key(caller: Caller) -> str:
    return caller.key_id or f"bootstrap-{caller.bootstrap or 'rollout'}"


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A stored response."""

    response: JsonDict
    """As its caller got it."""
    input: tuple[str, ...]
    """Digests of the items that it answered, those of earlier responses included."""
    output: tuple[str, ...]

    def pack(self) -> bytes:
        """The response as bytes, to be stored."""
        return orjson.dumps([self.response, self.input, self.output])

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """The inverse of `pack`."""
        response, given, output = orjson.loads(packed)
        return cls(response, tuple(given), tuple(output))


def digest_of(item: object) -> str:
    """The name under which an item is stored."""
    return hashlib.blake2b(orjson.dumps(item, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()


def input_items(given: object) -> list[Any]:
    """A request's `input` as items; a text is a message of the user."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return list(given) if isinstance(given, list) else []


def continued(before: list[JsonDict], given: list[JsonDict]) -> list[JsonDict]:
    """The conversation `before` and the items of a request that continues it, each once.

    Some clients send items again that the previous response has: OpenAI refuses those, here they count once. What they
    send again must be as it was, in its order; another item under a known id gets OpenAI's 400 `Refusal`.
    """
    known = {_id_of(item) for item in before} - {None}
    again = [at for at, item in enumerate(given) if _id_of(item) in known]
    end = max(again, default=-1) + 1
    is_all = len(given) >= len(before) and all(map(_is_same, before, given))
    end = max(end, len(before)) if is_all else end
    earlier = iter(before)
    for item in given[:end]:
        if not any(_is_same(one, item) for one in earlier):
            name = _id_of(item) or _id_of(given[end - 1])
            message = f"Duplicate item found with id {name}. Remove duplicate items from your input and try again."
            raise Refusal(400, "invalid_request", message, param="input")
    return [*before, *given[end:]]


def _id_of(item: object) -> str | None:
    return item["id"][:MAX_ID] if isinstance(item, dict) and isinstance(item.get("id"), str) else None


def _is_same(one: JsonDict, other: object) -> bool:
    """Whether two items say the same; of reasoning only ids are compared, as clients leave parts of it out."""
    if not isinstance(other, dict) or (_id_of(other) or _id_of(one)) != (_id_of(one) or _id_of(other)):
        return False
    if one.get("type") == other.get("type") == "reasoning" and _id_of(one) == _id_of(other):
        return True
    try:
        return messages_of(None, [one]) == messages_of(None, [other])
    except Refusal:
        return False


def reference_of(item: object) -> str | None:
    """The id of an item that only refers to another one."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return None
    is_bare = item.get("type") is None and item.keys() <= {"id", "type"}
    return item["id"] if is_bare or item.get("type") == "item_reference" else None


def fields_of(asked: JsonDict, response: JsonDict) -> dict[str, bytes]:
    """What is stored of a response: itself, the items of its conversation, and their names by item id."""
    given, output = input_items(asked.get("input")), list(response["output"])
    digests = [digest_of(item) for item in (*given, *output)]
    fields = {f"i:{name}": orjson.dumps(item) for name, item in zip(digests, (*given, *output), strict=True)}
    for name, item in zip(digests, (*given, *output), strict=True):
        named = f"n:{shown_id(item, name)}"
        fields[named] = name.encode() if fields.get(named, name.encode()) == name.encode() else AMBIGUOUS
    kept = KeptResponse(response, tuple(digests[: len(given)]), tuple(digests[len(given) :]))
    return fields | {f"r:{response['id']}": kept.pack()}


def shown_id(item: Mapping[str, Any], digest: str) -> str:
    """An item's id; one made of its digest if its sender gave it none."""
    if isinstance(item.get("id"), str):
        return str(item["id"])[:MAX_ID]
    kind = item.get("type") or ("message" if "role" in item else "item")
    return f"{PREFIXES.get(str(kind), 'item')}_{digest}"


def shown_item(item: JsonDict, digest: str) -> JsonDict:
    """An item of the input as `input_items` lists it: with its id, and a message's text as a part."""
    shown: JsonDict = {"id": shown_id(item, digest)} | item
    if "role" in item and isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        part: JsonDict = {"type": kind, "text": item["content"]}
        shown["content"] = [part | ({"annotations": []} if kind == "output_text" else {})]
    return shown if "type" in shown or "role" not in item else shown | {"type": "message"}


def page_of(items: Sequence[JsonDict], query: Mapping[str, str]) -> JsonDict:
    """A page of `items`, newest first unless `order` is `asc`. Raises a 400 `Refusal`."""
    limit, order, after = query.get("limit", str(LISTED)), query.get("order", "desc"), query.get("after")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST_LISTED):
        raise Refusal(400, "invalid_request", f"`limit` must be from 1 to {MOST_LISTED}", param="limit")
    if order not in ("asc", "desc"):
        raise Refusal(400, "invalid_request", "`order` must be `asc` or `desc`", param="order")
    listed = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        at = next((number for number, item in enumerate(listed) if item["id"] == after), None)
        if at is None:
            raise Refusal(400, "invalid_request", f"no item {after[:64]!r} in this response", param="after")
        listed = listed[at + 1 :]
    page = listed[: int(limit)]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = len(listed) > len(page)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more}


def previous_gone(response_id: str, limits: str) -> Refusal:
    """The refusal of a request that continues a response that is not there. OpenAI's clients know its code."""
    message = (
        f"Previous response with id {response_id[:64]!r} not found: it was not stored by this rollout and key, or "
        f"is no longer kept ({limits}). Send all items of the conversation in `input`."
    )
    return Refusal(400, "previous_response_not_found", message, param="previous_response_id")


def item_gone(item_id: str, where: str, limits: str) -> Refusal:
    """The refusal of a reference to an item that is not there."""
    message = (
        f"Item with id {item_id[:64]!r} not found: it was not stored by this rollout and key, or is no longer kept "
        f"({limits}). Send the item itself."
    )
    return Refusal(400, "item_not_found", message, param=where)


def item_ambiguous(item_id: str, where: str) -> Refusal:
    """The refusal of a reference to one of two items."""
    message = f"The id {item_id[:64]!r} belongs to two items of one conversation. Send the item itself."
    return Refusal(400, "item_ambiguous", message, param=where)


def response_gone(response_id: str) -> Refusal:
    """The 404 of a response that is not there."""
    return Refusal(404, "response_not_found", f"Response with id {response_id[:64]!r} not found.")
