"""Protobuf's wire format: where the fields of a message begin and end. Knows no schema."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10

Field = tuple[int, int, int, int]
"""Number, where its tag starts, where its value starts and ends (offsets)."""


class MalformedError(ValueError):
    """These bytes are no protobuf message."""


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`. Raises `MalformedError`; groups, long deprecated, are none."""
    while start < end:
        tag, value = _varint(data, start, end)
        stop = _end_of(data, tag & 7, value, end)
        if tag & 7 == BYTES:
            value = _varint(data, value, end)[1]
        if stop > end or not tag >> 3:
            raise MalformedError("a field is cut off or has no number")
        yield tag >> 3, start, value, stop
        start = stop


def prefix(number: int, length: int) -> bytes:
    """Tag and length of a field whose value has `length` bytes."""
    return bytes([number << 3 | BYTES]) + _encoded(length)


def _end_of(data: bytes, kind: int, at: int, end: int) -> int:
    if kind == BYTES:
        length, value = _varint(data, at, end)
        return value + length
    if kind == VARINT:
        return _varint(data, at, end)[1]
    if kind == FIXED64:
        return at + 8
    if kind == FIXED32:
        return at + 4
    raise MalformedError(f"wire type {kind}")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 128:
        return data[at], at + 1
    value = shift = 0
    for offset in range(at, min(at + MAX_VARINT_BYTES, end)):
        byte = data[offset]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset + 1
        shift += 7
    raise MalformedError("a number is cut off or too long")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
