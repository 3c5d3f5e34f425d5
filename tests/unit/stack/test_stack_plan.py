"""The processes of a stack and their environment follow from its configuration alone."""

import os
from pathlib import Path

import pytest

from leyden.stack import plan
from leyden.stack.cache import cache_root
from leyden.stack.config import SERVICES, StackConfig
from leyden.stack.errors import StackError
from leyden.stack.probes import HttpProbe
from leyden.stack.requirements import needs_of

PLACE = plan.StartInputs(
    kafka_servers="127.0.0.1:9092",
    redis_url="redis://127.0.0.1:6379/0",
    model=Path("/models/base"),
    api_keys=("one", "two"),
    gateway_secret="hidden",
)


def test_every_service_is_started_as_a_module_with_its_own_health_page(tmp_path: Path) -> None:
    specs = plan.service_specs(StackConfig(data_dir=tmp_path), PLACE)
    assert [spec.argv[1:] for spec in specs] == [("-m", f"leyden.{name}") for name in SERVICES]
    assert len({spec.env["LEYDEN_OPS_PORT"] for spec in specs}) == len(SERVICES)
    assert all(spec.ready == HttpProbe(f"http://127.0.0.1:{spec.env['LEYDEN_OPS_PORT']}/readyz") for spec in specs)


def test_services_share_kafka_redis_prefix_and_run_file(tmp_path: Path) -> None:
    config = StackConfig(data_dir=tmp_path, topic_prefix="x.", run_file=tmp_path / "runs" / "run.yaml")
    for spec in plan.service_specs(config, PLACE):
        assert spec.env["KAFKA_BOOTSTRAP_SERVERS"] == PLACE.kafka_servers
        assert spec.env["REDIS_URL"] == PLACE.redis_url
        assert spec.env["LEYDEN_TOPIC_PREFIX"] == "x."
        assert spec.env["LEYDEN_RUN_FILE"] == str(tmp_path / "runs" / "run.yaml")
        assert spec.env["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "runs")


def test_only_the_gateway_knows_its_secrets(tmp_path: Path) -> None:
    knowing = [s.name for s in plan.service_specs(StackConfig(data_dir=tmp_path), PLACE) if "hidden" in s.env.values()]
    assert knowing == ["gateway"]


def test_a_process_can_be_given_more_environment(tmp_path: Path) -> None:
    config = StackConfig(data_dir=tmp_path, env={"A": "all"}, process_env={"trainer": {"A": "mine"}})
    values = {spec.name: spec.env["A"] for spec in plan.service_specs(config, PLACE)}
    assert values.pop("trainer") == "mine"
    assert set(values.values()) == {"all"}
    assert plan.engine_spec(config, PLACE.model).env["A"] == "all"


def test_the_engine_serves_the_model_under_the_policys_name(tmp_path: Path) -> None:
    config = StackConfig(data_dir=tmp_path, engine="transformers", dtype="float32", policy="p", engine_args=("--x",))
    argv = plan.engine_spec(config, PLACE.model).argv
    options = dict(zip(argv[3:-1:2], argv[4:-1:2], strict=True))
    assert options["--model"] == "/models/base"
    assert (options["--engine"], options["--policy"], options["--dtype"]) == ("transformers", "p", "float32")
    assert argv[-1] == "--x"


def test_ports_of_servers_that_run_elsewhere_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    needs = needs_of(StackConfig(data_dir=tmp_path, model="tiny", services=("gateway",)), tmp_path)
    assert set(needs.ports) == {"the policy server", "the gateway", "the health page of gateway"}
    assert needs.fetch == []


def test_an_empty_cache_needs_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert needs_of(StackConfig(data_dir=tmp_path), tmp_path).fetch == ["Kafka's jars", "the model smollm2-135m"]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"LEYDEN_CACHE": "{}/a", "XDG_CACHE_HOME": "{}/b"}, "a"),
        ({"XDG_CACHE_HOME": "{}/b"}, "b/leyden"),
        ({"HOME": "{}/c"}, "c/.cache/leyden"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    env: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEYDEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cache_root() == tmp_path / expected
    assert cache_root().is_dir()


def test_a_cache_folder_that_cannot_be_made_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CACHE", "/dev/null/cache")
    with pytest.raises(StackError, match=r"/dev/null/cache cannot be created \(Not a directory\). Set LEYDEN_CACHE to"):
        cache_root()


@pytest.mark.parametrize("name", ["engine", "trainer"])
def test_a_process_that_always_fails_after_a_minute_of_loading_is_given_up(name: str, tmp_path: Path) -> None:
    config = StackConfig(data_dir=tmp_path)
    specs = {spec.name: spec for spec in [plan.engine_spec(config, PLACE.model), *plan.service_specs(config, PLACE)]}
    assert specs[name].max_deaths * 60.0 <= specs[name].death_window_s
