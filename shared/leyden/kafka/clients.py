"""Creates Kafka clients with safe options: producer, reading consumer, FastStream broker."""

import logging

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from leyden.kafka.settings import KafkaSettings

__all__ = ["KafkaBroker", "make_broker", "make_producer", "make_reader"]


def make_producer(settings: KafkaSettings, client_id: str) -> AIOKafkaProducer:
    """A producer with acks=all and idempotence, not started. Must be called in a running event loop."""
    return AIOKafkaProducer(
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=settings.linger_ms,
        max_batch_size=settings.batch_size,
        max_request_size=settings.max_request_size,
        compression_type=settings.compression_type,
        **settings.connection(),
    )


def make_reader(settings: KafkaSettings, fetch_max_wait_ms: int = 500) -> AIOKafkaConsumer:
    """A consumer without a group that never commits, not started."""
    return AIOKafkaConsumer(
        enable_auto_commit=False,
        fetch_max_bytes=settings.fetch_max_bytes,
        max_partition_fetch_bytes=settings.max_request_size,
        fetch_max_wait_ms=fetch_max_wait_ms,
        **settings.connection(),
    )


def make_broker(name: str, settings: KafkaSettings) -> KafkaBroker:
    """A FastStream broker for the subscribers of service `name`. It has no producer; `KafkaPublisher` publishes."""
    return KafkaBroker(
        settings.servers,
        client_id=f"leyden-{name}",
        security=_security(settings),
        consumer_only=True,
        allow_auto_create_topics=False,
        graceful_timeout=30.0,
        logger=logging.getLogger("leyden.faststream"),
        log_level=logging.DEBUG,
    )


def _security(settings: KafkaSettings) -> BaseSecurity | None:
    options = settings.connection()
    context = options.get("ssl_context")
    if "SASL" in settings.security_protocol:
        kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
        return kinds[settings.sasl_mechanism](
            username=options["sasl_plain_username"] or "",
            password=options["sasl_plain_password"] or "",
            ssl_context=context,
            use_ssl=context is not None,
        )
    return BaseSecurity(ssl_context=context, use_ssl=True) if context is not None else None
