"""Which promotion of a policy counts. No IO."""

from leyden.events.models import PolicyPromoted

REGISTRY = "registry"


class Promotion:
    """The promotion of one policy to follow, from its promotions in the order of the log.

    The registry only promotes newer versions. A lower one is from a registry that was stopped and continued when
    another had taken over, or that reads its topics again: it does not count. Of other producers (a rollback) the last
    one counts.
    """

    def __init__(self) -> None:
        self.current: PolicyPromoted | None = None
        self._highest = 0
        """The newest version that the registry has promoted."""

    @property
    def version(self) -> int:
        """The promoted version; 0 if there is none."""
        return self.current.version if self.current is not None else 0

    def add(self, event: PolicyPromoted) -> None:
        """Follow `event`, unless it is a registry's and not newer than what a registry promoted before."""
        if event.producer == REGISTRY:
            if event.version <= self._highest:
                return
            self._highest = event.version
        self.current = event
