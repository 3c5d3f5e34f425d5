"""The aiokafka types used in interfaces, for modules outside `leyden.kafka`: they must not import aiokafka."""

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

__all__ = ["ConsumerRecord", "GroupCoordinatorNotAvailableError", "KafkaError", "TopicPartition"]
