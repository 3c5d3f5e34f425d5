"""Kafka client settings, under Kafka's names: `bootstrap.servers` is `KAFKA_BOOTSTRAP_SERVERS`, and so on."""

import ssl
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class KafkaSettings(BaseSettings):
    """Connection and client settings for Kafka. Used by every service, tool and test."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="KAFKA_", extra="ignore")

    bootstrap_servers: str = "localhost:9092"
    """Comma-separated `host:port` list."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect: with TLS (`…SSL`), with a password (`SASL_…`), both or neither."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the password is sent, with `SASL_…`."""
    sasl_username: str | None = None
    """User name for `SASL_…`."""
    sasl_password: SecretStr | None = None
    """Password for `SASL_…`."""
    ssl_cafile: str | None = None
    """CA file for SSL; default: the system's store."""
    session_timeout_ms: int = Field(default=15_000, ge=1_000)
    """A consumer that Kafka has not heard of for so many milliseconds loses its partitions to the others."""
    group_instance_id: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9._-]{1,100}$")
    """Static membership: a process that restarts with the same id gets its partitions back at once, not after
    `session.timeout.ms`. The id must be unique per process; leave it unset if replicas are autoscaled."""
    max_poll_interval_ms: int = Field(default=300_000, ge=1_000)
    """How long a handler may take before its partitions are assigned to another replica, in milliseconds."""
    fetch_max_bytes: int = 16 * 1024 * 1024
    """Largest answer to one fetch, in bytes; a single larger record still comes whole."""
    max_request_size: int = 8 * 1024 * 1024
    """Largest record in bytes; larger values go to the claim store and are referenced."""
    linger_ms: int = 0
    """How long a record waits to be batched, in milliseconds. 0, because a model call waits for its record to be
    acknowledged; under load batches form anyway while earlier requests are in flight."""
    batch_size: int = 256 * 1024
    """Largest batch of records of one partition, in bytes."""
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] = "zstd"
    """zstd needs a quarter of the CPU of aiokafka's lz4 and compresses better. Topics must keep Kafka's default
    `compression.type=producer`: aiokafka cannot fetch from a topic set to zstd (aiokafka issue 1112)."""

    @property
    def servers(self) -> list[str]:
        """`bootstrap_servers` as a list."""
        return [part.strip() for part in self.bootstrap_servers.split(",") if part.strip()]

    def connection(self) -> dict[str, Any]:
        """Connection arguments for any aiokafka client."""
        options: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security_protocol}
        if "SSL" in self.security_protocol:
            options["ssl_context"] = ssl.create_default_context(cafile=self.ssl_cafile)
        if "SASL" in self.security_protocol:
            secret = self.sasl_password.get_secret_value() if self.sasl_password else None
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": secret,
            }
        return options
