"""The kinds of failures of rules and judges. A failure is recorded in `failed_rules`; it is never a reward of 0."""

from enum import StrEnum

MESSAGE_CHARS = 400
"""Maximum length of a recorded message; the log has the full traceback."""


class FailureKind(StrEnum):
    """Why a rule failed, after all retries."""

    EXCEPTION = "exception"
    """It raised an exception."""
    TIMEOUT = "timeout"
    """It exceeded its time limit and was stopped."""
    MEMORY = "memory"
    """It exceeded its memory limit."""
    ENDPOINT = "endpoint"
    """The model or service that it uses did not respond."""
    MALFORMED = "malformed"
    """It returned an invalid result: NaN, a string, a list of the wrong length."""
    LOST = "lost"
    """Its process died: `os._exit`, a crash, `kill -9`."""


class RuleFailed(Exception):  # noqa: N818 - named for what happened to the rule
    """A rule failed after all retries. Its text is `<kind>: <message>`, as in `failed_rules` and verdicts."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind = kind
        self.reason = message[:MESSAGE_CHARS]
        super().__init__(f"{kind}: {self.reason}")


def described(error: Exception) -> str:
    """`<kind>: <message>` for any exception raised by a rule."""
    if isinstance(error, RuleFailed):
        return str(error)
    return f"{FailureKind.EXCEPTION}: {type(error).__name__}: {error}"[:MESSAGE_CHARS]
