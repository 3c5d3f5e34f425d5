"""The log: topics as data, publishing, the one consumer loop, dead letters, claim checks.

Nothing outside this folder imports aiokafka or FastStream (held by an import contract).
"""

from leyden.kafka.delivered import Delivered, Outgoing, Poison, Publisher, Retry

__all__ = ["Delivered", "Outgoing", "Poison", "Publisher", "Retry"]
