"""Settings common to all services (environment variables `LEYDEN_…`), and reading sections of the run file."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

SectionT = TypeVar("SectionT", bound=BaseModel)


class ServiceSettings(BaseSettings):
    """Settings common to all services. Kafka's settings are in `leyden.kafka.settings` (`KAFKA_…`)."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_", extra="ignore")

    topic_prefix: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$")
    """Prefix of every topic, consumer group and Redis key. Separates tenants, tests and replays."""
    redis_url: str = Field(default="redis://localhost:6379/0", validation_alias="REDIS_URL")
    ops_host: str = "127.0.0.1"
    """Address of `/healthz`, `/readyz` and `/metrics`."""
    ops_port: int = 0
    """Port of `/healthz`, `/readyz` and `/metrics`; 0 picks a free one."""
    log_level: str = "INFO"
    data_dir: Path = Path("data")
    """Local folder for claim checks and checkpoints, unless a URL setting names another store."""
    claims_url: str | None = None
    """fsspec URL for values too large for Kafka; default: `claims/` in the data folder."""
    run_file: Path | None = None
    """YAML file with the sections reward, credit, trainer, policy."""
    stall_after_s: float = 120.0
    """Liveness fails if records are waiting and none was finished for this many seconds."""
    dead_letter_limit: int = Field(default=100, ge=0)
    """The process stops after this many consecutive dead letters with no record handled in between; 0: no limit."""

    @property
    def claims(self) -> str:
        """URL of the claim store."""
        return self.claims_url or f"file://{(self.data_dir / 'claims').absolute()}"


class RunFileError(ValueError):
    """The run file is invalid. The message names the file, the section and the field."""


def load_section(path: Path | None, section: str, model: type[SectionT]) -> SectionT:
    """Section `section` of the run file as `model`; the model's defaults if there is no file or no such section.

    Raises `RunFileError` if the file is missing, is not YAML, or has an unknown section or an invalid field.
    """
    if path is None:
        return model()
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise RunFileError(f"{path}: cannot be read as YAML: {error}") from error
    unknown = set(document) - RUN_FILE_SECTIONS if isinstance(document, dict) else {type(document).__name__}
    if unknown:
        names = ", ".join(sorted(RUN_FILE_SECTIONS))
        raise RunFileError(f"{path}: expected the sections {names}; found {sorted(map(str, unknown))}")
    try:
        return model.model_validate(document.get(section) or {})
    except ValueError as error:
        raise RunFileError(f"{path}: section {section}: {error}") from error


RUN_FILE_SECTIONS = {"reward", "credit", "trainer", "policy"}


def settings_help(environment: Sequence[type[BaseSettings]], section: tuple[str, type[BaseModel]] | None = None) -> str:
    """Text for `--help`: all settings with defaults and descriptions. Defaults of secrets are not shown."""
    lines = ["environment:"]
    for model in environment:
        prefix = str(model.model_config.get("env_prefix", ""))
        for name, field in model.model_fields.items():
            alias = field.validation_alias if isinstance(field.validation_alias, str) else None
            lines += _setting(alias or (prefix + name).upper(), field)
    if section is not None:
        lines.append(f"\nrun file (LEYDEN_RUN_FILE), section {section[0]}:")
        for name, field in section[1].model_fields.items():
            lines += _setting(name, field)
    return "\n".join(lines)


def _setting(name: str, field: FieldInfo) -> list[str]:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = (
        "required" if field.is_required() else f"default: {str(value) if isinstance(value, Path) else repr(value)}"
    )
    head = f"  {name}" if "Secret" in str(field.annotation) else f"  {name:36} {default}"
    text = " ".join((field.description or "").split())
    return [head, *textwrap.wrap(text, width=96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
