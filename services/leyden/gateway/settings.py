"""The gateway's knobs, from the environment with the prefix `LEYDEN_GATEWAY_`."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.gateway.core.prepare import TruncatedSampling


class GatewaySettings(BaseSettings):
    """Where the gateway listens, who may use it, and its limits. Times are seconds."""

    # A wrong secret must not be shown in the error that says it is wrong.
    model_config = SettingsConfigDict(env_prefix="LEYDEN_GATEWAY_", extra="ignore", hide_input_in_errors=True)

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
    max_concurrent_calls: int = Field(default=512, ge=1)
    """Model calls at a time in this replica; more are answered 429."""
    max_trace_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """Largest OTLP request, after decompression."""
    max_concurrent_traces: int = Field(default=64, ge=1)
    """OTLP requests at a time in this replica; more are answered 503, as OTLP wants it."""

    engine_connect_timeout_s: float = Field(default=5.0, gt=0)
    engine_timeout_s: float = Field(default=600.0, gt=0)
    """Whole time of one call at an engine, a weight swap that it waits for included."""
    engine_keepalive_s: float = Field(default=4.0, gt=0)
    """How long an idle connection is kept: below the engine's limit (uvicorn: 5 s), or it closes under a request."""
    publish_timeout_s: float = Field(default=10.0, gt=0)
    """How long a record may wait for Kafka before the caller is answered 503."""
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
    unsettled_grace_s: float = Field(default=15.0, gt=0)
    """How long an end may be on its way to the log before the sweeper writes it: longer than `publish_timeout_s`."""
    state_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """How long Redis remembers tasks, ended rollouts and their fences."""

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
    def url(self) -> str:
        """How agents reach this gateway, without a slash at its end."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


def _split(keys: SecretStr) -> list[str]:
    return [key for part in keys.get_secret_value().split(",") if (key := part.strip())]
