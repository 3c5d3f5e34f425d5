"""Repairs requests that one broken text makes unreadable: invalid characters are replaced, everything else is kept.

A client that cuts a text in the middle of an emoji sends half of it: as an escaped surrogate in JSON, as bytes that are
not UTF-8 in protobuf. Parsers then refuse the whole request. Slow; for requests that could not be parsed as they are.
"""

import math
import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from leyden.events import wire

MAX_DEPTH = 100
"""Messages nested deeper are left as they are; protobuf does not parse them either."""
_TOKEN = re.compile(
    rb'"(?:[^"\\]+|\\.)*+"|-?\bInfinity\b|\bNaN\b|-?[0-9]++(?:\.[0-9]++)?[eE][+]?[0-9]++|-?[0-9]{300,}+', re.DOTALL
)
_WANTED = re.compile(rb"\\u[dD][89a-fA-F]|[\x00-\x1f]")
_IN_STRING = re.compile(
    rb"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.|(?P<control>[\x00-\x1f])",
    re.DOTALL,
)


def well_formed_text(raw: bytes) -> str:
    """`raw` as text: bytes that are not UTF-8 become U+FFFD; halves of a character, each encoded alone, are joined."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def well_formed_json(body: bytes) -> bytes:
    """`body` with valid strings and numbers, if nothing else is wrong with it.

    Half a surrogate pair and bytes that are not UTF-8 become U+FFFD, control characters are escaped, and NaN,
    infinities (Python's `json` writes them bare) and numbers beyond a double (1e999) become the strings that protobuf's
    JSON has for them.
    """
    return _TOKEN.sub(_token, well_formed_text(body).encode())


def _token(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token[-1:].isdigit():
        beyond = math.isinf(float(token))
        return (b'"-Infinity"' if token[:1] == b"-" else b'"Infinity"') if beyond else token
    if token[:1] != b'"':
        return b'"' + token + b'"'
    return _IN_STRING.sub(_escape, token) if _WANTED.search(token) else token


def _escape(found: re.Match[bytes]) -> bytes:
    if found["half"]:
        return b"\\ufffd"
    return b"\\u%04x" % ord(found["control"]) if found["control"] else found[0]


def well_formed_protobuf(message: bytes, kind: Any, depth: int = 0) -> bytes:
    """A serialised `kind` with valid UTF-8 in all its string fields. Raises `wire.MalformedError`.

    `kind` is a message's `DESCRIPTOR`; protobuf has a class of it for each of its implementations.
    """
    pieces: list[bytes] = []
    for number, tag, start, end in wire.fields(message, 0, len(message)):
        field = kind.fields_by_number.get(number)
        value = None
        if field is not None and message[tag] & 7 == wire.BYTES and depth < MAX_DEPTH:
            value = _value(field, message[start:end], depth)
        pieces.append(message[tag:end] if value is None else wire.prefix(number, len(value)) + value)
    return b"".join(pieces)


def _value(field: Any, value: bytes, depth: int) -> bytes | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        return well_formed_text(value).encode()
    if field.message_type is not None:
        return well_formed_protobuf(value, field.message_type, depth + 1)
    return None
