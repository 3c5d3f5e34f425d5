"""What credit needs from outside: a store of evidence, and somewhere to publish. Both are shared plumbing."""

from leyden.kafka import Publisher
from leyden.state import EvidenceStore

__all__ = ["EvidenceStore", "Publisher"]
