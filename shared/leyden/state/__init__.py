"""A service's private working state, outside the log and rebuildable from it."""

from leyden.state.backlog import RedisBacklog
from leyden.state.evidence import EvidenceStore, MemoryEvidenceStore, RedisEvidenceStore
from leyden.state.faults import redis_or_retry, redis_step

__all__ = ["EvidenceStore", "MemoryEvidenceStore", "RedisBacklog", "RedisEvidenceStore", "redis_or_retry", "redis_step"]
