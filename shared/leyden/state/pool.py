"""Connections to Redis."""

from redis.asyncio import Redis

MAX_CONNECTIONS = 4096
"""Of one process; above what the gateway lets in at once. Connections are opened as they are needed.

redis-py's default is 100, and the 101st command at the same moment fails. Its pool that waits instead costs a quarter
more CPU time for every command.
"""


def make_redis(url: str) -> Redis:
    """A client for as many commands at once as a service has."""
    return Redis.from_url(url, max_connections=MAX_CONNECTIONS)
