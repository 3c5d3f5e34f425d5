"""The stores of credit in Redis."""

from leyden.credit.settings import CreditSettings
from leyden.service import Runtime
from leyden.state import RedisEvidenceStore


def redis_store(runtime: Runtime, what: str, settings: CreditSettings) -> RedisEvidenceStore:
    """The store of `what` (attempts, groups) in this service's own namespace."""
    namespace = runtime.namespace(what)
    return RedisEvidenceStore(runtime.redis, namespace, settings.closed_ttl_s, settings.open_ttl_s)
