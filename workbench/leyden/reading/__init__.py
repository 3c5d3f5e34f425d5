"""Reading the log from outside, for commands: where it is, which partitions hold what, events with their place.

Joins no consumer group, commits nothing, writes nothing.
"""

from leyden.reading.calls import CallReader
from leyden.reading.log import Log, Recorded
from leyden.reading.place import Place, place_of

__all__ = ["CallReader", "Log", "Place", "Recorded", "place_of"]
