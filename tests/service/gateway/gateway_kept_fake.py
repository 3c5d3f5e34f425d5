"""`KeptResponses` in memory: two generations of fields per owner, as on Redis, without expiry."""

from collections.abc import Mapping, Sequence

from leyden.gateway.adapters.kept import OVERHEAD


def size_of(fields: Mapping[str, bytes]) -> int:
    return sum(len(name.encode()) + len(value) + OVERHEAD for name, value in fields.items())


class MemoryKeptResponses:
    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self._half = max_bytes // 2
        self._owners: dict[str, tuple[dict[str, bytes], dict[str, bytes]]] = {}

    async def find(self, owner: str, fields: Sequence[str]) -> list[bytes | None]:
        newer, older = self._owners.get(owner, ({}, {}))
        return [newer.get(name, older.get(name)) for name in fields]

    async def keep(self, owner: str, fields: Mapping[str, bytes]) -> bool:
        if size_of(fields) > self._half:
            return False
        newer, older = self._owners.get(owner, ({}, {}))
        if size_of(newer | dict(fields)) > self._half:
            newer, older = {}, newer
        self._owners[owner] = (newer | dict(fields), older)
        return True

    async def drop(self, owner: str, field: str) -> bool:
        dropped = [part.pop(field, None) for part in self._owners.get(owner, ())]
        return any(value is not None for value in dropped)
