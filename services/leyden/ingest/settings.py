"""Knobs of ingest (`LEYDEN_INGEST_…`)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class IngestSettings(BaseSettings):
    """What an operator may change."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_INGEST_", extra="ignore")

    max_records: int = Field(default=100, ge=1)
    """OTLP requests taken at a time; each may hold hundreds of spans, and all of a batch are in memory together."""
    max_value_chars: int = Field(default=1_048_576, ge=1024)
    """Characters of one attribute of a span; of a longer one the beginning is kept, with a mark."""
    max_span_chars: int = Field(default=4_194_304, ge=4096)
    """Characters of all attributes of a span and its events; what comes after is left out, with a mark."""
