"""Compressed bodies, unpacked within a limit: a bomb costs no more memory than the limit."""

import zlib

import cramjam

from leyden.gateway.core.refusals import Refusal, Reserve

GZIP_WINDOW = 31
ZLIB_WINDOW = 15
STEP = 1024 * 1024
"""Bytes unpacked at a time, so that what is not allowed is found before it is there."""
ENCODINGS = ("gzip", "deflate", "zstd")


def unpack(encoding: str, body: bytes, limit: int, reserve: Reserve) -> bytes:
    """`body` without its `Content-Encoding`.

    Raises a `Refusal`: 415 for an encoding that is not taken, 400 for a body that is not in it, or not whole, and 413
    for one that unpacks to more than `limit` bytes.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ENCODINGS:
        raise Refusal(
            415, "unsupported_encoding", f"content-encoding must be one of {', '.join(ENCODINGS)} or identity"
        )
    try:
        return _zstd(body, limit, reserve) if encoding == "zstd" else _zlib(encoding, body, limit, reserve)
    except (zlib.error, cramjam.DecompressionError) as error:
        raise _malformed(encoding, str(error)) from error


def too_large(limit: int) -> Refusal:
    """The 413 for a body that unpacks to too much."""
    return Refusal(413, "body_too_large", f"the body is larger than {limit} bytes when unpacked")


def _zlib(encoding: str, body: bytes, limit: int, reserve: Reserve) -> bytes:
    """Of gzip every member (an archive may have several), of deflate the one zlib stream."""
    pieces: list[bytes] = []
    size = 0
    rest = body
    while rest or not pieces:
        unpacker = zlib.decompressobj(GZIP_WINDOW if encoding == "gzip" else ZLIB_WINDOW)
        while not unpacker.eof:
            piece = unpacker.decompress(rest, min(STEP, limit + 1 - size))
            rest = unpacker.unconsumed_tail
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            reserve(len(piece))
            pieces.append(piece)
            if not piece and not rest and not unpacker.eof:
                raise _malformed(encoding, "it is cut off")
        rest = unpacker.unused_data
        if rest and encoding == "deflate":
            raise _malformed(encoding, "there are bytes after its end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _zstd(body: bytes, limit: int, reserve: Reserve) -> bytes:
    """Into a buffer that grows up to the limit: frames need not say how large they become."""
    if not body:
        raise _malformed("zstd", "it is empty")
    size = min(limit, max(64 * 1024, 8 * len(body)))
    reserved = 0
    while True:
        reserve(size - reserved)
        reserved = size
        buffer = bytearray(size)
        try:
            length = cramjam.zstd.decompress_into(body, buffer)
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if size == limit:
                raise too_large(limit) from error
            size = min(limit, 4 * size)
        else:
            return bytes(memoryview(buffer)[:length])


def _malformed(encoding: str, why: str) -> Refusal:
    return Refusal(400, f"invalid_{encoding}", f"the body is not {encoding}: {why}")
