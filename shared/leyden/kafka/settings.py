"""Kafka client settings by their Kafka names: `bootstrap.servers` is `KAFKA_BOOTSTRAP_SERVERS`, and so on."""

import ssl
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class KafkaSettings(BaseSettings):
    """How to reach the log. Shared by every service, tool and test."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="KAFKA_", extra="ignore")

    bootstrap_servers: str = "localhost:9092"
    """Comma-separated `host:port` list."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: str | None = None
    """CA file for SSL; the system's store when unset."""
    session_timeout_ms: int = Field(default=15_000, ge=1_000)
    group_instance_id: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9._-]{1,100}$")
    """Static membership: a process that is killed and started again under the same id has its partitions back at once,
    not after `session.timeout.ms`. One id for one process; unset where replicas come and go."""
    max_poll_interval_ms: int = Field(default=300_000, ge=1_000)
    """How long a handler may take before its partitions go to somebody else."""
    fetch_max_bytes: int = 16 * 1024 * 1024
    max_request_size: int = 8 * 1024 * 1024
    """Largest record; larger values are stored aside and referenced (claim check)."""
    linger_ms: int = 0
    """How long a record waits for others. A model call waits for its record; batches form while one is on its way."""
    batch_size: int = 256 * 1024
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] = "zstd"
    """zstd takes a quarter of the CPU of aiokafka's lz4, for smaller records. Topics must keep Kafka's own default,
    `compression.type=producer`: from a topic that is set to zstd itself aiokafka cannot fetch (its issue 1112)."""

    @property
    def servers(self) -> list[str]:
        """`bootstrap.servers` as a list."""
        return [part.strip() for part in self.bootstrap_servers.split(",") if part.strip()]

    def connection(self) -> dict[str, Any]:
        """Keyword arguments that any aiokafka client takes to connect."""
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
