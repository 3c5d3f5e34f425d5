"""Reads the log for commands. Joins no consumer group, commits and writes nothing."""

from leyden.reading.calls import CallReader
from leyden.reading.location import LogLocation, log_location
from leyden.reading.log import Log, Recorded

__all__ = ["CallReader", "Log", "LogLocation", "Recorded", "log_location"]
