"""The outside: Redis, the policy servers, Kafka."""
