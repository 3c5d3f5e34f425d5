"""The metrics of the registry: a closed list."""

from prometheus_client import Counter, Gauge

REGISTERED = Counter("leyden_registry_versions", "Versions registered, duplicates included.", ["policy"])
PROMOTED_VERSION = Gauge("leyden_registry_promoted_version", "Version that shall serve.", ["policy"])
TRAINED_STEP = Gauge("leyden_registry_trained_step", "Last optimiser step that was reported.", ["policy"])
