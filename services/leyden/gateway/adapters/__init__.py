"""Adapters for Redis, the policy servers and Kafka."""
