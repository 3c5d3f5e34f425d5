"""A service's private state in Redis. It can always be rebuilt from Kafka."""

from leyden.state.backlog import RedisBacklog
from leyden.state.evidence import EvidenceStore, MemoryEvidenceStore, RedisEvidenceStore
from leyden.state.faults import redis_or_retry, redis_step
from leyden.state.pool import make_redis
from leyden.state.positions import RedisPositions

__all__ = [
    "EvidenceStore",
    "MemoryEvidenceStore",
    "RedisBacklog",
    "RedisEvidenceStore",
    "RedisPositions",
    "make_redis",
    "redis_or_retry",
    "redis_step",
]
