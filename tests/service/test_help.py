"""`python -m leyden.<service> --help` lists every setting of the service, with what it does."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
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


class _Documented(BaseModel):
    model_config = {"use_attribute_docstrings": True}

    count: int = 3
    """How many there are."""
    password: SecretStr = SecretStr("hidden")
    name: str


def test_help_has_defaults_and_descriptions_but_no_secret() -> None:
    text = settings_help([], ("made", _Documented))
    assert "count" in text
    assert "default: 3\n      How many there are." in text
    assert "hidden" not in text
    assert "required" in text.splitlines()[-1]
