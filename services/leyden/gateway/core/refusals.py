"""The gateway's own "no": one exception for all routes, given its JSON shape by the route that was called."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """The caller is answered with `status`; `code` is stable, `message` says what to do.

    `retry_after_s` is set where the same request may succeed later.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.request_id: str | None = None
        """What the caller may quote: the call's id where there is a call, set by whoever knows it."""
