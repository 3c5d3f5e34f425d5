"""Claim checks: a value too big for Kafka is stored once, by its content, and referenced."""

import asyncio
import hashlib

import fsspec
from aiokafka import ConsumerRecord

from leyden.kafka.delivered import CLAIM_HEADER, Retry


class ClaimStore:
    """Content-addressed values under any fsspec URL (`file:///…`, `s3://…`). Writing one twice changes nothing."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def put(self, value: bytes) -> str:
        """Store `value` and return its URL; the write is moved into place, so that a reader never sees half of it."""
        target = f"{self._url}/{hashlib.sha256(value).hexdigest()}"
        fs, path = fsspec.core.url_to_fs(target)
        if not fs.exists(path):
            fs.makedirs(fs._parent(path), exist_ok=True)
            fs.pipe_file(f"{path}.tmp", value)
            fs.mv(f"{path}.tmp", path)
        return target

    async def value_of(self, record: ConsumerRecord) -> bytes:
        """A record's value, from wherever it is. Raises `Retry` where the store is away, else what `get` raises."""
        claim = next((value for name, value in record.headers if name == CLAIM_HEADER), None)
        if claim is None:
            return record.value or b""
        try:
            return await asyncio.to_thread(self.get, claim.decode())
        except OSError as error:
            raise Retry(f"claim {claim.decode()} cannot be read: {error!r}") from error

    def get(self, url: str) -> bytes:
        """The value behind `url`.

        Raises ValueError for one of another store, one that is gone, or one with content not its name's; OSError where
        the store cannot be read, or is not there at all.
        """
        if not url.startswith(f"{self._url}/"):
            raise ValueError(f"claim {url} is not in this store ({self._url})")
        fs, path = fsspec.core.url_to_fs(url)
        try:
            value = bytes(fs.cat_file(path))
        except FileNotFoundError as error:
            if fs.exists(fs._parent(path)):
                raise ValueError(f"claim {url} is gone from its store") from error
            raise
        if hashlib.sha256(value).hexdigest() != url.rsplit("/", 1)[1]:
            raise ValueError(f"claim {url} does not hold what its name says")
        return value
