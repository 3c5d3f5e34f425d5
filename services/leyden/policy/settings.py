"""Settings of the agent (environment), and the run file's section `policy`."""

import socket

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class AgentSettings(BaseSettings):
    """Where the agent's engine is. Prefix `LEYDEN_POLICY_`."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_POLICY_", extra="ignore")

    name: str = ""
    """The policy that this agent is for; default: the run file's."""
    engine_url: str = "http://127.0.0.1:8100"
    """The engine that this agent looks after, without `/v1`."""
    endpoint: str = ""
    """The same engine's URL as gateways reach it; default: `engine_url`."""
    replica: str = Field(default_factory=socket.gethostname)
    """Name of this replica, unique among the policy's; keep it over restarts."""
    probe_s: float = Field(default=3.0, gt=0)
    """How often the agent looks whether the engine still has the promoted version."""
    swap_timeout_s: float = Field(default=180.0, gt=0)
    """How long one swap may take, draining included; longer than the engine's `LEYDEN_ENGINE_DRAIN_S`."""
    engine_token: str = ""
    """The engine's `LEYDEN_ENGINE_TOKEN`; needed where the engine is on another machine."""

    @property
    def announced_endpoint(self) -> str:
        """What gateways are told."""
        return (self.endpoint or self.engine_url).rstrip("/")


class PolicySection(BaseModel):
    """Section `policy` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    name: str = Field(default="policy", pattern=r"^[A-Za-z0-9._-]+$")
    """Name that agents give as `model`, and before the `@` of every version."""
