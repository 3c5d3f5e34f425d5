"""Waits until recorded verdicts have been read, so that no judge is asked for a verdict that exists."""

import asyncio
import logging

from leyden.backoff import Backoff, retrying
from leyden.events.codec import VERDICTS
from leyden.kafka.delivered import Retry
from leyden.kafka.progress import KafkaProgress, Stage
from leyden.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)


async def verdicts_read(kafka: KafkaSettings, prefix: str, group: str, every_s: float = 1.0) -> None:
    """Return once `group` has handled every verdict that was in the topic at the call. Retries while Kafka is down."""
    pause = Backoff(every_s, every_s)
    progress = KafkaProgress(kafka, prefix, (Stage(group, (VERDICTS,)),))
    try:
        await retrying(progress.begin, pause, Retry, failed=_tell)
        while not await retrying(  # noqa: ASYNC110 - Kafka sends no notification
            progress.done, pause, Retry, failed=_tell
        ):
            await asyncio.sleep(every_s)
    finally:
        await progress.close()


def _tell(error: Exception, delay_s: float) -> None:
    log.warning("retrying in %.0f s: %s", delay_s, error)
