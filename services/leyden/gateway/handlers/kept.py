"""The Responses API's state: a request gets the conversation that it refers to, and its response is kept.

The record of a call has the whole conversation, so nothing that is read from Kafka depends on this state.
"""

from collections.abc import Sequence

import orjson

from leyden.gateway.core import kept as core
from leyden.gateway.core.faces.responses_request import refused
from leyden.gateway.core.kept import KeptResponse
from leyden.gateway.core.request import Binding, JsonDict
from leyden.gateway.ports import KeptResponses


class Kept:
    """Responses of each attempt and key. `limits` says in errors how much is kept, and for how long."""

    def __init__(self, store: KeptResponses, limits: str) -> None:
        self._store = store
        self._limits = limits

    async def resolved(self, binding: Binding, asked: JsonDict) -> JsonDict:
        """The request with all items of its conversation in `input`. Raises a 400 `Refusal` for what is not kept."""
        given, previous = asked.get("input"), asked.get("previous_response_id")
        references = [core.reference_of(item) for item in given] if isinstance(given, list) else []
        if previous is None and not any(references):
            return asked
        owner = core.owner_of(binding)
        items = await self._referred(owner, core.input_items(given), references)
        return asked | {"input": core.continued(await self._before(owner, previous), items)}

    async def keep(self, binding: Binding, asked: JsonDict, response: JsonDict) -> JsonDict:
        """Keep a response, unless its caller does not want it or it is too large; returns it with `store` as it is."""
        if asked.get("store") is False:
            return response
        stored = response | {"store": True}
        is_kept = await self._store.keep(core.owner_of(binding), core.fields_of(asked, stored))
        return stored if is_kept else response

    async def find(self, binding: Binding, response_id: str) -> KeptResponse:
        """A response. Raises a 404 `Refusal`."""
        found = await self._response(core.owner_of(binding), response_id)
        if found is None:
            raise core.response_gone(response_id)
        return found

    async def items_of(self, binding: Binding, response_id: str) -> list[JsonDict]:
        """The items that a response answered, as they are listed. Raises a 404 `Refusal`."""
        found = await self.find(binding, response_id)
        items = await self._items(core.owner_of(binding), found.input)
        if items is None:
            raise core.response_gone(response_id)
        return [core.shown_item(item, digest) for item, digest in zip(items, found.input, strict=True)]

    async def delete(self, binding: Binding, response_id: str) -> None:
        """Delete a response. Raises a 404 `Refusal`."""
        if not await self._store.drop(core.owner_of(binding), f"r:{response_id[: core.MAX_ID]}"):
            raise core.response_gone(response_id)

    async def _before(self, owner: str, previous: object) -> list[JsonDict]:
        """The conversation up to and including the response `previous`."""
        if previous is None:
            return []
        if not isinstance(previous, str):
            raise refused("`previous_response_id` must be a string", "previous_response_id")
        found = await self._response(owner, previous)
        items = None if found is None else await self._items(owner, (*found.input, *found.output))
        if items is None:
            raise core.previous_gone(previous, self._limits)
        return items

    async def _referred(self, owner: str, items: list[JsonDict], references: Sequence[str | None]) -> list[JsonDict]:
        """The items, with each reference replaced by its item."""
        wanted = {name: at for at, name in enumerate(references) if name is not None}
        names = [f"n:{name[: core.MAX_ID]}" for name in wanted]
        digests = await self._store.find(owner, names)
        stored = [one for one in digests if one]
        found = await self._store.find(owner, [f"i:{one.decode()}" for one in stored])
        by_digest = dict(zip(stored, found, strict=True))
        by_name: dict[str, JsonDict] = {}
        for (name, at), digest in zip(wanted.items(), digests, strict=True):
            if digest == core.AMBIGUOUS:
                raise core.item_ambiguous(name, f"input[{at}]")
            packed = by_digest.get(digest) if digest is not None else None
            if packed is None:
                raise core.item_gone(name, f"input[{at}]", self._limits)
            by_name[name] = orjson.loads(packed)
        referred = zip(items, references or [None] * len(items), strict=True)
        return [item if name is None else by_name[name] for item, name in referred]

    async def _response(self, owner: str, response_id: str) -> KeptResponse | None:
        (packed,) = await self._store.find(owner, [f"r:{response_id[: core.MAX_ID]}"])
        return None if packed is None else KeptResponse.unpack(packed)

    async def _items(self, owner: str, digests: Sequence[str]) -> list[JsonDict] | None:
        """The items; None if one of them is no longer kept."""
        found = await self._store.find(owner, [f"i:{digest}" for digest in digests])
        return None if None in found else [orjson.loads(one) for one in found if one is not None]
