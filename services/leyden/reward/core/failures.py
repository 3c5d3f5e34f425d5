"""How a grader or a judge can fail: a closed list. A failure is data (`failed_rules`), never a reward of 0."""

from enum import StrEnum

MESSAGE_CHARS = 400
"""What is kept of a message; the rest of a traceback is in the log."""


class FailureKind(StrEnum):
    """Why a rule gave nothing, after every retry."""

    EXCEPTION = "exception"
    """It raised."""
    TIMEOUT = "timeout"
    """It took longer than it may, and was ended."""
    MEMORY = "memory"
    """It asked for more memory than it may have."""
    ENDPOINT = "endpoint"
    """The model or service that it asks did not answer."""
    MALFORMED = "malformed"
    """It answered with something that is no reward: NaN, a text, a list of the wrong length."""
    LOST = "lost"
    """Its process died under it: `os._exit`, a crash, a `kill -9`."""


class RuleFailed(Exception):  # noqa: N818 - named for what happened to the rule
    """A rule failed for good; its text is `<kind>: <message>`, as `failed_rules` and verdicts have it."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind = kind
        self.reason = message[:MESSAGE_CHARS]
        super().__init__(f"{kind}: {self.reason}")


def described(error: Exception) -> str:
    """`<kind>: <message>` of whatever a rule raised."""
    if isinstance(error, RuleFailed):
        return str(error)
    return f"{FailureKind.EXCEPTION}: {type(error).__name__}: {error}"[:MESSAGE_CHARS]
