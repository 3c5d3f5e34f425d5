"""Reads the log for commands. Joins no consumer group, commits and writes nothing."""

from leyden.reading.calls import CallReader
from leyden.reading.log import Log, Recorded
from leyden.reading.place import Place, place_of

__all__ = ["CallReader", "Log", "Place", "Recorded", "place_of"]
