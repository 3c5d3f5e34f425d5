"""Where a log is: the broker that the environment names, a running stack's, or a stopped stack's, started."""

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
class Place:
    """A cluster, the prefix of the topics that were written live, and the store of what was too big for Kafka."""

    kafka: KafkaSettings
    prefix: str
    claims_url: str


def claims_url_of(config: StackConfig) -> str:
    """The claim store of the stack's services."""
    return ServiceSettings().claims_url or f"file://{config.data_dir / 'services' / 'claims'}"


@contextmanager
def kafka_of(folder: DataFolder) -> Iterator[str]:
    """The bootstrap servers of the stack in `folder`, there for as long as the context is open; raises StackError."""
    state = folder.read_state()
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
    elif state.is_running:
        yield state.kafka_servers
    else:
        with KafkaBroker(folder.root / "kafka") as broker:
            yield broker.bootstrap_servers


@contextmanager
def place_of(data_dir: Path) -> Iterator[Place]:
    """The log of the stack in `data_dir`; without one there, the one that KAFKA_BOOTSTRAP_SERVERS names."""
    folder = DataFolder(data_dir)
    settings = ServiceSettings()
    if not folder.config.exists():
        if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            raise StackError(
                f"There is no stack's data in {folder.root}. Name the folder of one with --data-dir, "
                "or a broker with KAFKA_BOOTSTRAP_SERVERS."
            )
        yield Place(KafkaSettings(), settings.topic_prefix, settings.claims)
        return
    config = StackConfig.model_validate_json(folder.config.read_text())
    with kafka_of(folder) as servers:
        yield Place(KafkaSettings(bootstrap_servers=servers), config.topic_prefix, claims_url_of(config))
