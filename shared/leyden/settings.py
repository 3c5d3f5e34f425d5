"""Settings common to all services (environment variables `LEYDEN_…`), and reading sections of the run file."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.run_file_errors import Lines, explained, lines_of, nearest, placed

SectionT = TypeVar("SectionT", bound=BaseModel)


class ServiceSettings(BaseSettings):
    """Settings common to all services. Kafka's settings are in `leyden.kafka.settings` (`KAFKA_…`)."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_", extra="ignore")

    topic_prefix: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$")
    """Prefix of every topic, consumer group and Redis key. Separates tenants, tests and replays."""
    redis_url: str = Field(default="redis://localhost:6379/0", validation_alias="REDIS_URL")
    """The Redis server of the services' private state; they rebuild it from Kafka when it is lost."""
    ops_host: str = "127.0.0.1"
    """Address of `/healthz`, `/readyz` and `/metrics`."""
    ops_port: int = 0
    """Port of `/healthz`, `/readyz` and `/metrics`; 0 picks a free one."""
    log_level: str = "INFO"
    """Lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
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


FieldProblem = tuple[tuple[str | int, ...], str]
"""Where in a section of the run file, and what is wrong."""


class RunFileError(ValueError):
    """The run file is invalid. The message has a line for each problem: file, line, field, value, what is wrong."""


def load_section(path: Path | None, section: str, model: type[SectionT]) -> SectionT:
    """Section `section` of the run file as `model`; the model's defaults if there is no file or no such section.

    Raises `RunFileError`, with all problems at once, if the file is missing, is not YAML, or has an unknown section or
    an invalid field.
    """
    if path is None:
        return model()
    found = _Found(path, section, model)
    if found.problems or found.loaded is None:
        raise RunFileError("\n".join(found.problems))
    return found.loaded


def section_problems(
    path: Path, section: str, model: type[SectionT], check: Callable[[SectionT], Iterable[FieldProblem]]
) -> list[str]:
    """What is wrong with the section: each with file, line and field; `check` is asked where it can be read."""
    try:
        found = _Found(path, section, model)
    except RunFileError as error:
        return [str(error)]
    for loc, message in check(found.loaded) if found.loaded is not None else ():
        line, field = placed(found.lines, (section, *loc))
        found.problems.append(f"{path}:{line}: {field}: {message}")
    return found.problems


class _Found(Generic[SectionT]):
    """A section as far as it can be read, and what is wrong. Raises `RunFileError` if the file cannot be read."""

    def __init__(self, path: Path, section: str, model: type[SectionT]) -> None:
        document, self.lines = _read(path)
        self.loaded: SectionT | None = None
        unknown = sorted(set(document) - RUN_FILE_SECTIONS, key=str)
        problems = [f"{self.lines.get((name,), 1)}: {_no_section(str(name))}" for name in unknown]
        try:
            self.loaded = model.model_validate({} if document.get(section) is None else document[section])
        except ValidationError as error:
            problems += explained(error, model, section, self.lines)
        self.problems = [f"{path}:{problem}" for problem in problems]


def _read(path: Path) -> tuple[dict[Any, Any], Lines]:
    """The document, and the lines of its keys and items."""
    try:
        text = path.read_text()
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RunFileError(f"{path}:{line}: cannot be read as YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunFileError(f"{path}:1: cannot be read as YAML: {error}") from error
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        names = ", ".join(sorted(RUN_FILE_SECTIONS))
        raise RunFileError(f"{path}:1: expected the sections {names}; found a {type(document).__name__}")
    return document, lines_of(text)


def _no_section(name: str) -> str:
    near = nearest(name, RUN_FILE_SECTIONS)
    hint = f"did you mean {near}?" if near else f"the sections are {', '.join(sorted(RUN_FILE_SECTIONS))}"
    return f"{name}: there is no such section; {hint}"


RUN_FILE_SECTIONS = {"reward", "credit", "trainer", "policy"}


def variable_of(model: type[BaseSettings], name: str) -> str:
    """The environment variable of a field."""
    alias = model.model_fields[name].validation_alias if name in model.model_fields else None
    return alias if isinstance(alias, str) else (str(model.model_config.get("env_prefix", "")) + name).upper()


def environment_problems(error: ValidationError, models: Sequence[type[BaseSettings]]) -> str:
    """What is wrong in the environment, by variable: one line for each problem, with the setting's description."""
    model = next((one for one in models if one.__name__ == error.title), None)
    lines = []
    for details in error.errors():
        name = str(details["loc"][0]) if details["loc"] else ""
        fields = {} if model is None else model.model_fields
        known = next((field for field in fields if model and name in (field, variable_of(model, field))), None)
        variable = variable_of(model, known) if model and known else name or error.title
        about = " ".join((fields[known].description or "").split()) if known else ""
        secret = known is not None and "Secret" in str(fields[known].annotation)
        shown = "" if secret else f" (it is {details['input']!r})"
        message = details["msg"].removeprefix("Value error, ")
        what = "is not set" if details["type"] == "missing" else f"is wrong: {message}{shown}"
        lines.append(f"{variable} {what}{f': {about}' if about else ''}")
    return "\n".join(lines)


def settings_help(environment: Sequence[type[BaseSettings]], section: tuple[str, type[BaseModel]] | None = None) -> str:
    """Text for `--help`: all settings with defaults and descriptions. Defaults of secrets are not shown."""
    lines = ["environment:"]
    for model in environment:
        for name, field in model.model_fields.items():
            lines += _setting(variable_of(model, name), field)
    if section is not None:
        lines.append(f"\nrun file (LEYDEN_RUN_FILE), section {section[0]}:")
        for name, field in section[1].model_fields.items():
            lines += _setting(name, field)
    return "\n".join(lines)


UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes"}
"""Ending of a setting's name → its unit."""


def unit_of(name: str) -> str:
    """The unit of a setting, from its name; empty for a plain number or a word."""
    return next((unit for ending, unit in UNITS.items() if name.lower().endswith(ending)), "")


def _setting(name: str, field: FieldInfo) -> list[str]:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = (
        "required" if field.is_required() else f"default: {str(value) if isinstance(value, Path) else repr(value)}"
    )
    unit = f" {unit_of(name)}" if unit_of(name) and value is not None else ""
    head = f"  {name}" if "Secret" in str(field.annotation) else f"  {name:36} {default}{unit}"
    text = " ".join((field.description or "").split())
    return [head, *textwrap.wrap(text, width=96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
