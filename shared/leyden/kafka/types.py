"""The types of aiokafka that stand in our own interfaces. Nothing outside `leyden.kafka` imports aiokafka itself."""

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

__all__ = ["ConsumerRecord", "KafkaError", "TopicPartition"]
