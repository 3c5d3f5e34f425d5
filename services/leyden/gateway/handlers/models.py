"""Updates the routing table of this replica from models.v1."""

from collections.abc import Callable, Sequence

from leyden.events import Event, PolicyPromoted, PolicyServed
from leyden.gateway.core.routing import RoutingTable, server_of
from leyden.kafka import Delivered


class ModelsHandler:
    """Updates the routing table with the newest reports; idempotent.

    `reported` is called with the name of every replica that reports, so that its circuit can close.
    """

    def __init__(self, table: RoutingTable, reported: Callable[[str], None] = lambda _: None) -> None:
        self._table = table
        self._reported = reported

    async def on_models(self, batch: Sequence[Delivered[Event]]) -> None:
        """Apply reports and promotions, in the order of the log."""
        for delivered in batch:
            match delivered.event:
                case PolicyServed() as served:
                    self._table.note_served(served)
                    self._reported(server_of(served))
                case PolicyPromoted() as promoted:
                    self._table.note_promoted(promoted)
                case _:
                    pass
