"""Kafka and Redis for a replay: as the environment names them, a running stack's, or a stopped stack's, restarted."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from leyden.reading.location import kafka_of
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.redis import RedisServer
from leyden.stack.state import DataFolder


@dataclass(frozen=True)
class Brokers:
    """Addresses of Kafka and Redis, and the configuration and model of the stack that wrote the log."""

    kafka_servers: str
    redis_url: str
    stack: StackConfig
    model: str


@contextmanager
def brokers_of(data_dir: Path) -> Iterator[Brokers]:
    """The brokers of the stack in `data_dir`; they run while the context is open. Raises StackError."""
    folder = DataFolder(data_dir)
    if not folder.config.exists():
        raise StackError(f"No stack data in {folder.root}. Pass the data folder of a stack with --data-dir.")
    config = StackConfig.model_validate_json(folder.config.read_text())
    state = folder.read_state()
    with ExitStack() as stack:
        kafka = stack.enter_context(kafka_of(folder))
        if url := os.environ.get("REDIS_URL"):
            redis = url
        elif state.is_running:
            redis = state.redis_url
        else:
            redis = stack.enter_context(RedisServer(folder.root / "redis")).url
        yield Brokers(kafka, redis, config, state.model)
