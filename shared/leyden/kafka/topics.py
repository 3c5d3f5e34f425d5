"""Topics as data: one YAML file per topic under `schemas/topics/` is the whole truth about it."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

DEAD_LETTER_SUFFIX = ".dlq"


class TopicSpec(BaseModel):
    """What one topic holds, who touches it, and how Kafka keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*\.v[0-9]+$")
    description: str
    owner: str
    producers: list[str]
    consumers: list[str]
    """Services with a subscription; each may write to the topic's dead letters."""
    readers: list[str] = Field(default_factory=list)
    """Services that read the topic from its beginning, when needed, outside every consumer group."""
    key: str
    """What the key is; the same key keeps its order."""
    format: Literal["json", "otlp"] = "json"
    events: list[str] = Field(default_factory=list)
    partitions: int = Field(ge=1)
    copartition: str | None = None
    """Topics of one co-partition set have the same key and count, so one consumer holds all of a rollout."""
    cleanup_policy: Literal["delete", "compact"] = "delete"
    retention_ms: int = -1
    """-1: for ever; replay needs it."""
    compatibility: Literal["BACKWARD"] = "BACKWARD"


def schemas_dir() -> Path:
    """The folder with `topics/`: inside the installed package, or at the root of the source tree."""
    here = Path(__file__).resolve()
    packaged = here.parents[1] / "schemas"
    return packaged if packaged.is_dir() else here.parents[3] / "schemas"


@cache
def load_topics() -> dict[str, TopicSpec]:
    """Every topic by name; raises `pydantic.ValidationError` naming the field that is wrong."""
    files = sorted((schemas_dir() / "topics").glob("*.yaml"))
    specs = [TopicSpec.model_validate(yaml.safe_load(file.read_text())) for file in files]
    return {spec.name: spec for spec in specs}
