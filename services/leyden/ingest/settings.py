"""Settings of ingest (`LEYDEN_INGEST_…`)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class IngestSettings(BaseSettings):
    """Settings of ingest."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_INGEST_", extra="ignore")

    max_records: int = Field(default=100, ge=1)
    """Largest number of OTLP requests in a batch. Each may hold hundreds of spans; the whole batch is in memory."""
    max_value_chars: int = Field(default=1_048_576, ge=1024)
    """Largest length of an attribute's value, in characters. Longer values are truncated and marked."""
    max_span_chars: int = Field(default=4_194_304, ge=4096)
    """Largest length of all attributes of a span and its events, in characters. Further attributes are dropped."""
