"""Topic definitions: one YAML file per topic in `schemas/topics/`, the only source of its configuration."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

DEAD_LETTER_SUFFIX = ".dlq"


class TopicSpec(BaseModel):
    """The definition of one topic: its events, who produces and consumes it, and its Kafka configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*\.v[0-9]+$")
    description: str
    owner: str
    producers: list[str]
    consumers: list[str]
    """Services with a subscription. Each may write to the topic's dead letters."""
    readers: list[str] = Field(default_factory=list)
    """Services that read the topic from its beginning when needed, without a consumer group."""
    key: str
    """Description of the record key. Records with the same key stay in order."""
    format: Literal["json", "otlp"] = "json"
    events: list[str] = Field(default_factory=list)
    partitions: int = Field(ge=1)
    copartition: str | None = None
    """Topics of one set have the same key and partition count, so one consumer gets all records of a rollout."""
    cleanup_policy: Literal["delete", "compact"] = "delete"
    retention_ms: int = -1
    """-1: keep forever, which replay needs."""
    compatibility: Literal["BACKWARD"] = "BACKWARD"


def schemas_dir() -> Path:
    """The `schemas` folder: in the installed package, or at the root of the source tree."""
    here = Path(__file__).resolve()
    packaged = here.parents[1] / "schemas"
    return packaged if packaged.is_dir() else here.parents[3] / "schemas"


@cache
def load_topics() -> dict[str, TopicSpec]:
    """All topics by name. Raises `pydantic.ValidationError` for an invalid definition."""
    files = sorted((schemas_dir() / "topics").glob("*.yaml"))
    specs = [TopicSpec.model_validate(yaml.safe_load(file.read_text())) for file in files]
    return {spec.name: spec for spec in specs}
