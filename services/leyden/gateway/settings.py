"""The gateway's settings: environment variables with the prefix `LEYDEN_GATEWAY_`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.gateway.core.routing import Balance
from leyden.gateway.core.sampling import ShapedSampling
from leyden.gateway.core.upstreams import Timeouts


class GatewaySettings(BaseSettings):
    """Addresses, keys and limits of the gateway. Times are in seconds."""

    # The error about an invalid secret must not show it.
    model_config = SettingsConfigDict(
        use_attribute_docstrings=True, env_prefix="LEYDEN_GATEWAY_", extra="ignore", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    """Address on which it listens; `0.0.0.0` for all."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Port of the API: models, OTLP over HTTP, tasks and rollouts."""
    public_url: str | None = None
    """URL under which agents reach the gateway, used in claims. Default: `http://<host>:<port>`."""
    secret: SecretStr
    """Signs the keys of rollouts; at least 16 characters, the same for every replica."""
    api_keys: SecretStr
    """Comma-separated keys of runners, operators and agents; at least one."""
    shaped_sampling: ShapedSampling = ShapedSampling.OVERRIDE
    """For whatever changes the sampled distribution of training rollouts beyond temperature (top_p, penalties, forced
    formats, unknown fields …): refuse (400), override (not sent) or mark (sampled as asked, never trained)."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """Largest JSON body; larger ones get 413."""
    max_decoded_bytes: int = Field(default=128 * 1024 * 1024, ge=1)
    """Memory that the values of one JSON body may take, estimated from its brackets and commas; more get 413."""
    max_body_bytes_in_flight: int = Field(default=256 * 1024 * 1024, ge=1)
    """Memory of JSON bodies at a time, as sent and decoded; more get 503. A model call counts until its end; requests
    under `/leyden/v1` have as much of their own."""
    head_timeout_s: float = Field(default=15.0, gt=0)
    """Time limit for a request's head; then the connection is closed."""
    body_timeout_s: float = Field(default=60.0, gt=0)
    """Time limit for a request's body; then it gets 408, or 503 if it is OTLP."""
    body_stall_timeout_s: float = Field(default=10.0, gt=0)
    """Time limit for the next piece of a body; then it gets 408, or 503 if it is OTLP."""
    send_timeout_s: float = Field(default=30.0, gt=0)
    """A client that reads less than 64 KiB of a waiting reply in this time is disconnected."""
    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest request head (URL and headers); larger ones get 431."""
    max_headers: int = Field(default=128, ge=16)
    """Maximum number of request headers; more get 431."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at a time to this replica, idle ones too; one more gets 503 and is closed. Must be above the sum of
    the three limits on requests. A running model call needs one more file descriptor, for its engine."""
    max_concurrent_calls: int = Field(default=512, ge=1)
    """Model calls at a time in this replica; one more gets 429."""
    max_concurrent_claims: int = Field(default=256, ge=1)
    """Claims at a time in this replica, waiting ones included; one more gets 503."""
    max_concurrent_requests: int = Field(default=256, ge=1)
    """Other requests under `/leyden/v1` at a time in this replica; one more gets 503."""
    max_trace_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest OTLP request, before and after decompression; larger ones get 413."""
    max_trace_bytes_in_flight: int = Field(default=128 * 1024 * 1024, ge=1)
    """Bytes of OTLP requests in memory at a time, as sent and decompressed; more get 503. At least twice
    `max_trace_bytes`, or a compressed request of that size never fits."""
    max_concurrent_traces: int = Field(default=64, ge=1)
    """OTLP requests at a time in this replica; one more gets 503, as OTLP demands."""
    trace_record_bytes: int = Field(default=1024 * 1024, ge=1024)
    """A larger OTLP request is split between spans into Kafka records of about this size."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port of OTLP over gRPC (4317 by convention); 0: off."""
    grpc_max_message_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    """Largest OTLP request over gRPC, decompressed; larger ones get RESOURCE_EXHAUSTED. As many messages are received
    at a time as fit into `max_trace_bytes_in_flight`, each within `body_stall_timeout_s`; one key has half of them."""

    engine_connect_timeout_s: float = Field(default=5.0, gt=0)
    """Time limit of a connection to an engine, in seconds."""
    engine_timeout_s: float = Field(default=600.0, gt=0)
    """Time limit of one call at an engine, including a weight swap that it waits for."""
    engine_first_byte_timeout_s: float | None = Field(default=None, gt=0)
    """Time limit for the first byte of a reply's body; for a plain reply that is the time of the whole generation."""
    engine_max_in_flight: int = Field(default=512, ge=1)
    """Calls at a time to one replica from this gateway; when every replica is full, callers get 503."""
    max_reply_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Longest reply of an engine or upstream, after decompression; a longer one is cut off."""
    engine_keepalive_s: float = Field(default=4.0, gt=0)
    """How long idle connections are kept; must be below the engine's limit (uvicorn: 5 s), or requests may fail."""
    upstreams: Path | None = None
    """YAML file of other OpenAI-compatible servers and their models; see the README."""
    sticky_version: Literal["off", "rollout"] = "off"
    """`rollout`: calls of a rollout that name no version go to the version of its first call, while that is live."""
    balance: Balance = Balance.LEAST_LOADED
    """Choice of a version's replica: least_loaded, or prefix (calls with the same prefix go to the same replica)."""
    retry_tries: int = Field(default=4, ge=1)
    """Maximum number of tries of one call, the first one included; 1 switches retries off."""
    retry_base_s: float = Field(default=0.2, gt=0)
    """The first wait is random, up to this; the limit doubles for each further one."""
    retry_cap_s: float = Field(default=5.0, gt=0)
    """Upper limit of such waits."""
    retry_after_cap_s: float = Field(default=10.0, ge=0)
    """With a longer `Retry-After` than this the server's reply is returned to the caller, header included."""
    circuit_failures: int = Field(default=5, ge=1)
    """Number of failures in a row after which the circuit of a replica or upstream opens."""
    circuit_pause_s: float = Field(default=10.0, gt=0)
    """How long a circuit stays open before one call tries again."""
    publish_timeout_s: float = Field(default=10.0, gt=0)
    """How long a record may wait for Kafka before the caller gets 503."""
    publish_slow_s: float = Field(default=5.0, gt=0)
    """While a record has waited longer than this for Kafka, new calls and traces get 503 at once."""
    publish_pause_s: float = Field(default=1.0, ge=0)
    """How long calls are refused after a failure of Kafka."""
    store_timeout_s: float = Field(default=5.0, gt=0)
    """Time limit of one Redis operation."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """`Retry-After` of 429 and 503 replies."""

    lease_s: float = Field(default=60.0, gt=0)
    """How long a claimed attempt is kept without a heartbeat."""
    claim_poll_s: float = Field(default=0.1, gt=0)
    """Interval at which a waiting claim looks at the queue."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """Interval of the search for expired leases, for ends that are not in the log, and for calls whose attempt is
    over."""
    train_share: float = Field(default=3.0, gt=0)
    """Training rollouts handed out for every `validation_share` validation rollouts, while both wait."""
    validation_share: float = Field(default=1.0, gt=0)
    """Validation rollouts handed out for every `train_share` training rollouts, while both wait."""
    loop_calls: int = Field(default=5, ge=2)
    """A failed attempt whose last calls, this many, had the same output is a repetition loop."""
    unsettled_grace_s: float = Field(default=15.0, gt=0)
    """How long an end may take to reach the log before the sweeper writes it; longer than `publish_timeout_s`. After
    Redis lost its data, the gateway waits this long before it reads the log."""
    state_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """How long Redis keeps tasks, ended rollouts and their fences."""

    tokens_in: str = ""
    """Policies (comma-separated shell patterns) whose prompts reuse the tokens of the call that they extend."""
    tokens_in_answers: int = Field(default=256, ge=1)
    """Number of an attempt's answers that are kept for later calls to extend."""
    responses_ttl_s: int = Field(default=21_600, ge=1)
    """Responses of the Responses API are kept this long after the last one of their attempt (or key), in seconds."""
    responses_max_bytes: int = Field(default=16 * 1024 * 1024, ge=65_536)
    """Bytes of responses that are kept of one attempt and key; the oldest go first."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value()) < 16:
            raise ValueError("LEYDEN_GATEWAY_SECRET needs at least 16 characters: `openssl rand -hex 32` creates one")
        return secret

    @field_validator("api_keys")
    @classmethod
    def _at_least_one(cls, keys: SecretStr) -> SecretStr:
        if not _split(keys):
            raise ValueError("LEYDEN_GATEWAY_API_KEYS needs at least one key (comma-separated)")
        return keys

    @property
    def keys(self) -> list[str]:
        """The API keys."""
        return _split(self.api_keys)

    @property
    def tokens_in_policies(self) -> list[str]:
        """The patterns in `tokens_in`."""
        return [pattern for part in self.tokens_in.split(",") if (pattern := part.strip())]

    @property
    def engine_timeouts(self) -> Timeouts:
        """Time limits of one call at an engine."""
        return Timeouts(self.engine_connect_timeout_s, self.engine_first_byte_timeout_s, self.engine_timeout_s)

    @property
    def url(self) -> str:
        """The gateway's URL for agents, without a trailing slash."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


def _split(keys: SecretStr) -> list[str]:
    return [key for part in keys.get_secret_value().split(",") if (key := part.strip())]
