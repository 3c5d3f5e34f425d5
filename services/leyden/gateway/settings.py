"""The gateway's knobs, from the environment with the prefix `LEYDEN_GATEWAY_`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.gateway.core.request import TruncatedSampling
from leyden.gateway.core.routing import Balance
from leyden.gateway.core.upstreams import Timeouts


class GatewaySettings(BaseSettings):
    """Where the gateway listens, who may use it, and its limits. Times are seconds."""

    # A wrong secret must not be shown in the error that says it is wrong.
    model_config = SettingsConfigDict(
        use_attribute_docstrings=True, env_prefix="LEYDEN_GATEWAY_", extra="ignore", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    public_url: str | None = None
    """How agents reach this gateway, for the base URLs that claims hand out; default: `http://<host>:<port>`."""
    secret: SecretStr
    """Signs per-rollout keys; at least 16 characters, the same for every replica."""
    api_keys: SecretStr
    """Comma-separated keys of runners, operators and agents; at least one."""
    truncated_sampling: TruncatedSampling = TruncatedSampling.OVERRIDE
    """top_p < 1, top_k > 0, min_p > 0 in training rollouts: refuse (400), override (sampled without) or allow."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """Largest JSON body; larger ones are answered 413."""
    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """Longest head of a request (URL and headers); longer ones are answered 431."""
    max_headers: int = Field(default=128, ge=16)
    """Most headers of a request; more are answered 431."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at a time to this replica, idle ones too; one more is answered 503 and closed, whatever it asks.
    Above the three limits on requests together; an open model call has a file descriptor more, at its engine."""
    max_concurrent_calls: int = Field(default=512, ge=1)
    """Model calls at a time in this replica; more are answered 429."""
    max_concurrent_claims: int = Field(default=256, ge=1)
    """Claims at a time in this replica, those that wait for a rollout included; more are answered 503."""
    max_concurrent_requests: int = Field(default=256, ge=1)
    """All other requests under `/leyden/v1` at a time in this replica; more are answered 503."""
    max_trace_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest OTLP request, before and after decompression; larger ones are answered 413."""
    max_trace_bytes_in_flight: int = Field(default=128 * 1024 * 1024, ge=1)
    """Bytes of OTLP requests in memory at a time, as sent and as unpacked; more are answered 503. At least twice
    `max_trace_bytes`, or a compressed request of that size never fits."""
    max_concurrent_traces: int = Field(default=64, ge=1)
    """OTLP requests at a time in this replica; more are answered 503, as OTLP wants it."""
    trace_record_bytes: int = Field(default=1024 * 1024, ge=1024)
    """An OTLP request above this size is cut, between spans, into records of about this size for Kafka."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Where OTLP over gRPC is served (4317 by convention); 0: not at all."""

    engine_connect_timeout_s: float = Field(default=5.0, gt=0)
    engine_timeout_s: float = Field(default=600.0, gt=0)
    """Whole time of one call at an engine, a weight swap that it waits for included."""
    engine_first_byte_timeout_s: float | None = Field(default=None, gt=0)
    """Until the first byte of an answer's body. A plain reply has it when it is whole: above the longest generation."""
    engine_max_in_flight: int = Field(default=512, ge=1)
    """Calls at a time at one replica from this gateway; when every replica is full, callers are answered 503."""
    max_reply_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Longest answer of an engine or upstream that is read, after decompression; a longer one is broken off."""
    engine_keepalive_s: float = Field(default=4.0, gt=0)
    """How long an idle connection is kept: below the engine's limit (uvicorn: 5 s), or it closes under a request."""
    upstreams: Path | None = None
    """YAML file of other OpenAI-compatible servers and the models that go to them; see the README."""
    sticky_version: Literal["off", "rollout"] = "off"
    """`rollout`: a rollout's calls that name no version go to the one that answered its first, while it is live."""
    balance: Balance = Balance.LEAST_LOADED
    """Among the replicas of a version: least_loaded, or prefix (calls with the same prefix to the same replica)."""
    retry_tries: int = Field(default=4, ge=1)
    """How often servers are asked for one call at most, the first time included; 1 switches retries off."""
    retry_base_s: float = Field(default=0.2, gt=0)
    """The first wait is a random time up to this, each further one up to twice the one before."""
    retry_cap_s: float = Field(default=5.0, gt=0)
    """The longest such wait."""
    retry_after_cap_s: float = Field(default=10.0, ge=0)
    """A server whose `Retry-After` asks for more is not waited for: the caller gets its answer, header included."""
    circuit_failures: int = Field(default=5, ge=1)
    """After so many failures in a row a replica or upstream is set aside."""
    circuit_pause_s: float = Field(default=10.0, gt=0)
    """For so long; then one call tries."""
    publish_timeout_s: float = Field(default=10.0, gt=0)
    """How long a record may wait for Kafka before the caller is answered 503."""
    publish_slow_s: float = Field(default=5.0, gt=0)
    """While a record has waited for Kafka for longer than this, calls and traces are answered 503 at once."""
    publish_pause_s: float = Field(default=1.0, ge=0)
    """After Kafka failed, calls are refused for this long before an engine is asked."""
    store_timeout_s: float = Field(default=5.0, gt=0)
    """How long Redis may take for one step."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """What `Retry-After` says on 429 and 503."""

    lease_s: float = Field(default=60.0, gt=0)
    """How long a claimed attempt lives without a heartbeat."""
    claim_poll_s: float = Field(default=0.1, gt=0)
    """How often a waiting claim looks at the queue."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """How often leases that ran out, and ends that are not yet in the log, are looked for."""
    train_share: float = Field(default=3.0, gt=0)
    """Rollouts of training tasks handed out for each `validation_share` of validation tasks, while both wait."""
    validation_share: float = Field(default=1.0, gt=0)
    """The same for validation: neither ever waits for the other's queue to be empty."""
    loop_calls: int = Field(default=5, ge=2)
    """An attempt that failed after so many model calls with the same output in a row was a repetition loop."""
    unsettled_grace_s: float = Field(default=15.0, gt=0)
    """How long an end may be on its way to the log before the sweeper writes it: longer than `publish_timeout_s`.
    After Redis lost its data, the log is read when this time is over."""
    state_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """How long Redis remembers tasks, ended rollouts and their fences."""

    tokens_in: str = ""
    """Policies, as comma-separated shell patterns, whose prompts keep the tokens of the call that they extend."""
    tokens_in_answers: int = Field(default=256, ge=1)
    """Answers of an attempt that are kept for later calls to extend."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value()) < 16:
            raise ValueError("LEYDEN_GATEWAY_SECRET needs at least 16 characters (`openssl rand -hex 32` makes one)")
        return secret

    @field_validator("api_keys")
    @classmethod
    def _at_least_one(cls, keys: SecretStr) -> SecretStr:
        if not _split(keys):
            raise ValueError("LEYDEN_GATEWAY_API_KEYS must hold at least one key (comma-separated)")
        return keys

    @property
    def keys(self) -> list[str]:
        """The API keys."""
        return _split(self.api_keys)

    @property
    def tokens_in_policies(self) -> list[str]:
        """Patterns of `tokens_in`."""
        return [pattern for part in self.tokens_in.split(",") if (pattern := part.strip())]

    @property
    def engine_timeouts(self) -> Timeouts:
        """Bounds of one call at an engine."""
        return Timeouts(self.engine_connect_timeout_s, self.engine_first_byte_timeout_s, self.engine_timeout_s)

    @property
    def url(self) -> str:
        """How agents reach this gateway, without a slash at its end."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


def _split(keys: SecretStr) -> list[str]:
    return [key for part in keys.get_secret_value().split(",") if (key := part.strip())]
