"""The log: topics as data, publishing, the one consumer loop, dead letters, claim checks.

Nothing outside this folder uses a Kafka client directly.
"""

from leyden.kafka.delivered import Delivered, Outgoing, Poison, Publisher, Retry

__all__ = ["Delivered", "Outgoing", "Poison", "Publisher", "Retry"]
