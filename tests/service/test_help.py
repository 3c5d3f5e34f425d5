"""`python -m leyden.<service> --help` lists every setting of the service, with what it does."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from leyden.credit.core.section import CreditSection
from leyden.kafka.settings import KafkaSettings
from leyden.reward.settings import RewardSection
from leyden.settings import RUN_FILE_SECTIONS, ServiceSettings, settings_help

SECTIONS: dict[str, type[BaseModel]] = {"reward": RewardSection, "credit": CreditSection}
SERVICES = ("gateway", "ingest", "reward", "credit", "trainer", "registry", "policy")


def settings_of(service: str) -> list[type[BaseModel]]:
    """The service's environment, and its section of the run file."""
    module: Any = importlib.import_module(f"leyden.{service}.settings")
    found: list[Any] = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    environments = [one for one in found if issubclass(one, BaseSettings)]
    return [*environments, *(section for name, section in SECTIONS.items() if name == service)]


@pytest.mark.parametrize("service", SERVICES)
def test_help_lists_every_setting_of_the_service_and_those_of_all(service: str) -> None:
    command = [sys.executable, "-m", f"leyden.{service}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()}
    models: list[type[BaseModel]] = [*settings_of(service), ServiceSettings, KafkaSettings]
    for model in models:
        prefix = str(model.model_config.get("env_prefix", ""))
        for name, field in model.model_fields.items():
            alias = field.validation_alias
            assert (alias if isinstance(alias, str) else (prefix + name).upper() if prefix else name) in listed
    assert ("run file" in done.stdout) == (service in RUN_FILE_SECTIONS)


def described_in_help(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of `model`, and of models of settings in them."""
    for name, field in model.model_fields.items():
        yield f"{model.__name__}.{name}", field
        inner = field.annotation
        if (
            isinstance(inner, type)
            and issubclass(inner, BaseModel)
            and inner.model_config.get("use_attribute_docstrings")
        ):
            yield from described_in_help(inner)


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_has_a_description(service: str) -> None:
    main_module: Any = importlib.import_module(f"leyden.{service}.settings")
    sections = [one for name, one in vars(main_module).items() if isinstance(one, type) and issubclass(one, BaseModel)]
    models: list[type[BaseModel]] = [*settings_of(service), ServiceSettings, KafkaSettings]
    models += [one for one in sections if one.__module__ == main_module.__name__ and one not in models]
    fields = dict(pair for model in models for pair in described_in_help(model))
    assert [name for name, field in fields.items() if not (field.description or "").strip()] == []


class _Documented(BaseModel):
    model_config = {"use_attribute_docstrings": True}

    count: int = 3
    """How many there are."""
    wait_s: float = 2.5
    max_bytes: int | None = None
    password: SecretStr = SecretStr("hidden")
    name: str


def test_help_has_defaults_and_descriptions_but_no_secret() -> None:
    text = settings_help([], ("made", _Documented))
    assert "count" in text
    assert "default: 3\n      How many there are." in text
    assert "hidden" not in text
    assert "default: 2.5 seconds" in text
    assert "default: None\n" in text
    assert "required" in text.splitlines()[-1]
