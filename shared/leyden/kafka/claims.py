"""Claim checks: a value too large for Kafka is stored under its hash, and the record refers to it."""

import asyncio
import hashlib
import secrets

import fsspec
from aiokafka import ConsumerRecord

from leyden.kafka.delivered import CLAIM_HEADER, Retry


class ClaimStore:
    """Content-addressed storage under an fsspec URL (`file:///…`, `s3://…`). Storing a value twice is a no-op."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def put(self, value: bytes) -> str:
        """Store `value` and return its URL. Writes to a temporary file and renames it, so no reader sees part of it."""
        target = f"{self._url}/{hashlib.sha256(value).hexdigest()}"
        fs, path = fsspec.core.url_to_fs(target)
        if not fs.exists(path):
            fs.makedirs(fs._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
            written = f"{path}.{secrets.token_hex(8)}.tmp"  # another process may be writing the same value
            fs.pipe_file(written, value)
            fs.mv(written, path)
        return target

    async def value_of(self, record: ConsumerRecord) -> bytes:
        """The value of a record, fetched from the store if the record is a claim check.

        Raises `Retry` if the store is unavailable, ValueError as `get` does.
        """
        claim = next((value for name, value in record.headers if name == CLAIM_HEADER), None)
        if claim is None:
            return record.value or b""
        try:
            return await asyncio.to_thread(self.get, claim.decode())
        except OSError as error:
            raise Retry(f"cannot read claim {claim.decode()}: {error!r}") from error

    def get(self, url: str) -> bytes:
        """The value stored at `url`.

        Raises ValueError if the URL is of another store, or the value is gone or does not match its hash; OSError if
        the store cannot be read or does not exist.
        """
        if not url.startswith(f"{self._url}/"):
            raise ValueError(f"claim {url} is not in this store ({self._url})")
        fs, path = fsspec.core.url_to_fs(url)
        try:
            value = bytes(fs.cat_file(path))
        except FileNotFoundError as error:
            if fs.exists(fs._parent(path)):  # noqa: SLF001 - as above
                raise ValueError(f"claim {url} is no longer in the store") from error
            raise
        if hashlib.sha256(value).hexdigest() != url.rsplit("/", 1)[1]:
            raise ValueError(f"the content of claim {url} does not match its hash")
        return value
