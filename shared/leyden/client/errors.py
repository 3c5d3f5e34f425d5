"""What the client library raises.

LeydenError
├── ConfigurationError          the library cannot be set up as asked
├── NoRolloutError              used outside of a rollout
└── GatewayError
    ├── GatewayUnavailableError no usable answer in time; a later retry may work
    └── GatewayRefusedError     a 4xx answer; a retry will not help
        └── AttemptOverError    the attempt has already ended, or its lease was lost
"""


class LeydenError(Exception):
    """Base class of everything that this library raises."""


class ConfigurationError(LeydenError):
    """The library cannot be set up as asked."""


class NoRolloutError(LeydenError):
    """There is no current rollout."""


class GatewayError(LeydenError):
    """A request to the gateway failed."""


class GatewayUnavailableError(GatewayError):
    """No answer, or only 429 and 5xx, until the retry timeout."""


class GatewayRefusedError(GatewayError):
    """The gateway answered with a 4xx status; a retry will not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the gateway answered {status}: {message}")
        self.status = status


class AttemptOverError(GatewayRefusedError):
    """The attempt has already ended, or its lease was lost."""
