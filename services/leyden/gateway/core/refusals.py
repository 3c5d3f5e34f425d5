"""The gateway's error replies: one exception for all routes; each route gives it its own JSON shape."""

from collections.abc import Callable, Mapping
from typing import Any

NO_HEADERS: Mapping[str, str] = {}
Reserve = Callable[[int], None]
"""Called with bytes before they are held in memory; raises a `Refusal` if they would be too many."""


class Refusal(Exception):  # noqa: N818 - a reply, not a fault
    """An error reply with `status`; `code` is stable, `message` says what to do.

    `retry_after_s` is set if the same request may succeed later.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers
        """Further headers of the reply."""
        self.details = details
        """What a client's code reads of the error, where an API has a place for it."""
        self.request_id: str | None = None
        """The id that the caller can quote: the call's id if there is a call."""


def unavailable(retry_after_s: float = 1.0) -> Refusal:
    """The reply to a temporary fault of Kafka or Redis; details are in the log, not in the reply."""
    message = "the call could not be recorded just now; nothing was lost, send it again"
    return Refusal(503, "unavailable", message, retry_after_s=retry_after_s)
