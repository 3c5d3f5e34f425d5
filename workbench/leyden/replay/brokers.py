"""Kafka and Redis for a replay: those that are named, a running stack's, or a stopped stack's started again."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from leyden.reading.place import kafka_of
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.redis import RedisServer
from leyden.stack.state import DataFolder


@dataclass(frozen=True)
class Brokers:
    """Where the log and the working state are, and what the stack that wrote the log was made with."""

    kafka_servers: str
    redis_url: str
    stack: StackConfig
    model: str


@contextmanager
def brokers_of(data_dir: Path) -> Iterator[Brokers]:
    """The brokers of the stack in `data_dir`, running for as long as the context is open; raises StackError."""
    folder = DataFolder(data_dir)
    if not folder.config.exists():
        raise StackError(f"There is no stack's data in {folder.root}. Name the folder of one with --data-dir.")
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
