"""The metrics of the registry."""

from prometheus_client import Counter, Gauge

REGISTERED = Counter("leyden_registry_versions", "Versions registered, duplicates included.", ["policy"])
PROMOTED_VERSION = Gauge("leyden_registry_promoted_version", "Version that should serve.", ["policy"])
TRAINED_STEP = Gauge("leyden_registry_trained_step", "Last optimiser step reported by the trainer.", ["policy"])
