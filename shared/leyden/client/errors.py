"""What the client library raises.

LeydenError
├── ConfigurationError          `init` was given nothing to work with
├── NoRolloutError              something that belongs to a rollout was used outside of one
└── GatewayError
    ├── GatewayUnavailableError no answer in the time allowed; trying again later may help
    └── GatewayRefusedError     the gateway said no; trying again will not help
        └── AttemptOverError    the attempt has ended already, or its lease was lost
"""


class LeydenError(Exception):
    """Base of everything that this library raises."""


class ConfigurationError(LeydenError):
    """The library cannot be set up as asked."""


class NoRolloutError(LeydenError):
    """There is no current rollout."""


class GatewayError(LeydenError):
    """The gateway did not do what was asked."""


class GatewayUnavailableError(GatewayError):
    """The gateway did not answer, or only with 429 or 5xx, until patience ran out."""


class GatewayRefusedError(GatewayError):
    """The gateway answered with an error that no second try will mend."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the gateway answered {status}: {message}")
        self.status = status


class AttemptOverError(GatewayRefusedError):
    """The attempt is over."""
