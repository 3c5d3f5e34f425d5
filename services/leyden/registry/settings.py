"""Settings of the registry: environment variables `LEYDEN_REGISTRY_…`."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict


class RegistrySettings(BaseSettings):
    """Settings of the registry."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_REGISTRY_", extra="ignore")

    promote: Literal["automatic", "manual"] = "automatic"
    """`automatic`: promote every new version at once; `manual`: leave it a candidate."""
    experiment: str = ""
    """Appended to the policy's name (`<policy>+<experiment>`), so that a replay's candidates and live versions never
    have the same name."""
