"""Kafka: topic definitions, publishing, consuming, dead letters, claim checks, reading.

No module outside this package imports aiokafka or FastStream; an import contract checks that.
"""

from leyden.kafka.delivered import Delivered, Outgoing, Poison, Publisher, Retry

__all__ = ["Delivered", "Outgoing", "Poison", "Publisher", "Retry"]
