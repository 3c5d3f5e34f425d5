"""The gateway's own "no": one exception for all routes, given its JSON shape by the route that was called."""

from collections.abc import Mapping

NO_HEADERS: Mapping[str, str] = {}


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """The caller is answered with `status`; `code` is stable, `message` says what to do.

    `retry_after_s` is set where the same request may succeed later.
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
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers
        """More headers of the answer."""
        self.request_id: str | None = None
        """What the caller may quote: the call's id where there is a call, set by whoever knows it."""


def unavailable(retry_after_s: float = 1.0) -> Refusal:
    """What a passing fault of Kafka or Redis becomes; which one it was is in the log, not in the answer."""
    message = "the call could not be recorded just now; nothing was lost, send it again"
    return Refusal(503, "unavailable", message, retry_after_s=retry_after_s)
