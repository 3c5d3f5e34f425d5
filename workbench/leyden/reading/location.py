"""Finds the log to read: the broker of the environment, of a running stack, or of a stopped one, which is started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leyden.kafka.settings import KafkaSettings
from leyden.settings import ServiceSettings
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.kafka import KafkaBroker
from leyden.stack.state import DataFolder


@dataclass(frozen=True)
class LogLocation:
    """A Kafka cluster, the prefix of its live topics, and the store of its claim checks."""

    kafka: KafkaSettings
    prefix: str
    claims_url: str


def claims_url_of(config: StackConfig) -> str:
    """URL of the stack's claim store."""
    return ServiceSettings().claims_url or f"file://{config.data_dir / 'services' / 'claims'}"


@contextmanager
def kafka_of(folder: DataFolder) -> Iterator[str]:
    """The bootstrap servers of the stack in `folder`, running while the context is open. Raises StackError."""
    state = folder.read_state()
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
    elif state.is_running:
        yield state.kafka_servers
    else:
        with KafkaBroker(folder.root / "kafka") as broker:
            yield broker.bootstrap_servers


@contextmanager
def log_location(data_dir: Path) -> Iterator[LogLocation]:
    """The log of the stack in `data_dir`, or else of KAFKA_BOOTSTRAP_SERVERS. Raises StackError."""
    folder = DataFolder(data_dir)
    settings = ServiceSettings()
    if not folder.config.exists():
        if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            raise StackError(
                f"{folder.root} has no data of a stack. Pass the folder of one with --data-dir, "
                "or set KAFKA_BOOTSTRAP_SERVERS."
            )
        yield LogLocation(KafkaSettings(), settings.topic_prefix, settings.claims)
        return
    config = StackConfig.model_validate_json(folder.config.read_text())
    with kafka_of(folder) as servers:
        yield LogLocation(KafkaSettings(bootstrap_servers=servers), config.topic_prefix, claims_url_of(config))
