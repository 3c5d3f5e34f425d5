"""Knobs of ingest (`LEYDEN_INGEST_…`)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class IngestSettings(BaseSettings):
    """What an operator may change."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_INGEST_", extra="ignore")

    max_records: int = Field(default=100, ge=1)
    """OTLP requests taken at a time; each may hold hundreds of spans, and all of a batch are in memory together."""
