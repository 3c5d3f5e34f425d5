"""The knobs of the registry: environment, prefix `LEYDEN_REGISTRY_`."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict


class RegistrySettings(BaseSettings):
    """How versions go live."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_REGISTRY_", extra="ignore")

    promote: Literal["automatic", "manual"] = "automatic"
    """automatic: every new version shall serve at once; manual: it stays a candidate."""
    experiment: str = ""
    """Names the versions `<policy>+<experiment>`: a replay's candidates never share a name with live versions."""
