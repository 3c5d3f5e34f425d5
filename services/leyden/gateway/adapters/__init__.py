"""The outside: Redis, the policy servers, Kafka with an end to patience."""
