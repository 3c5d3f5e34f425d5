"""JSON log lines on standard error, one object per line, with the trace id if there is one."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from opentelemetry import trace

CHATTY = ("aiokafka", "faststream")
"""Loggers of libraries that report every try."""
REPEATS_S = 10.0
MOST_MESSAGES = 1_000
"""Different messages that `RepeatFilter` remembers."""


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object: time, level, service, logger, message, and the traceback if any."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = f"{context.trace_id:032x}"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class RepeatFilter(logging.Filter):
    """Lets a message of one place pass once in `every_s` seconds, with the number of those left out since.

    While Kafka is away its client reports each failed try of each connection, which fills disks. Messages are alike if
    logger, level and text without arguments are the same. Errors with a traceback always pass.
    """

    def __init__(self, every_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._monotonic = monotonic
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return True
        alike, now = (record.name, record.levelno, str(record.msg)), self._monotonic()
        since, left_out = self._seen.get(alike, (-self._every_s, 0))
        if now - since < self._every_s:
            self._seen[alike] = since, left_out + 1
            return False
        if len(self._seen) >= MOST_MESSAGES:
            self._seen.clear()
        self._seen[alike] = now, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this since)", ()
        return True


def setup_logging(service: str, level: str = "INFO") -> None:
    """Write all logging of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    repeats = RepeatFilter(REPEATS_S)
    handler.addFilter(lambda record: not record.name.startswith(CHATTY) or repeats.filter(record))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiokafka", "uvicorn.access", "httpx"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
