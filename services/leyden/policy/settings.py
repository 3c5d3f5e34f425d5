"""Settings of the policy agent: environment variables `LEYDEN_POLICY_…`, and section `policy` of the run file."""

import socket

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class AgentSettings(BaseSettings):
    """Settings of the policy agent."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_POLICY_", extra="ignore")

    name: str = ""
    """Name of the policy; default: the name in the run file."""
    engine_url: str = "http://127.0.0.1:8100"
    """URL of this agent's engine, without `/v1`."""
    endpoint: str = ""
    """URL at which gateways reach the engine; default: `engine_url`."""
    replica: str = Field(default_factory=socket.gethostname)
    """Name of this replica. Must be unique among the policy's replicas and the same after a restart."""
    probe_s: float = Field(default=3.0, gt=0)
    """Interval in seconds at which the agent checks the engine's version."""
    swap_timeout_s: float = Field(default=180.0, gt=0)
    """Limit for one swap, draining included. Must be longer than the engine's `LEYDEN_ENGINE_DRAIN_S`."""
    engine_token: str = ""
    """The engine's `LEYDEN_ENGINE_TOKEN`; needed if the engine is on another machine."""

    @property
    def announced_endpoint(self) -> str:
        """The engine's URL for gateways."""
        return (self.endpoint or self.engine_url).rstrip("/")


class PolicySection(BaseModel):
    """Section `policy` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    name: str = Field(default="policy", pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the policy: the `model` that agents request, and the part before `@` in version names."""
