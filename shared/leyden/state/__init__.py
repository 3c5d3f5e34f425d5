"""A service's private working state, outside the log and rebuildable from it."""

from leyden.state.evidence import EvidenceStore, MemoryEvidenceStore, RedisEvidenceStore

__all__ = ["EvidenceStore", "MemoryEvidenceStore", "RedisEvidenceStore"]
