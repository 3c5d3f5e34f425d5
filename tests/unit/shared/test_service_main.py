"""How a service's `main` ends."""

import pytest
from pydantic_settings import BaseSettings

import leyden.service
from leyden.kafka.settings import KafkaSettings
from leyden.service import Build, main
from leyden.settings import RunFileError, ServiceSettings


def test_what_does_not_fit_at_the_start_ends_a_service_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what shows only when a model is loaded, such as one that cannot be packed."""

    async def refusing(name: str, build: Build, settings: ServiceSettings, kafka: KafkaSettings) -> None:
        raise RunFileError("model m (mamba) cannot be trained on packed sequences")

    monkeypatch.setattr(leyden.service, "serve", refusing)
    monkeypatch.setattr("sys.argv", ["trainer"])
    with pytest.raises(SystemExit, match=r"^leyden trainer: invalid settings: model m \(mamba\) cannot be trained"):
        main("trainer", lambda runtime: pytest.fail("not built"), "Trains.", environment=BaseSettings)
