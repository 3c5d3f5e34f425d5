"""Answers in JSON."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response


def json_answer(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`answer` as orjson writes it."""
    return Response(orjson.dumps(answer), status, headers, media_type="application/json")
