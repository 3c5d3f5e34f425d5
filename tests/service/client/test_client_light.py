"""An agent's environment: what `pip install leyden` makes of an empty one, from the wheel that this tree builds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundled import UV
from client_support import KEY, FakeGateway
from roots import ROOT

HTTP = {"httpx", "httpcore", "h11", "anyio", "idna", "certifi", "typing-extensions"}
TELEMETRY = {
    "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions", "opentelemetry-proto",
    "opentelemetry-exporter-otlp-proto-http", "opentelemetry-exporter-otlp-proto-common",
    "opentelemetry-exporter-otlp-common", "opentelemetry-exporter-http-transport", "protobuf",
    "googleapis-common-protos", "requests", "charset-normalizer", "urllib3",
}  # fmt: skip
MAX_MIB = 20

AGENT = """
import sys, leyden

@leyden.tool
def add(a, b):
    return a + b

@leyden.rollout
def agent():
    leyden.emit_reward(1.0)
    leyden.emit_message("hello")
    return add(1, 2)

leyden.init(sys.argv[1], sys.argv[2])
print(agent())
leyden.Runner(lambda claim: 1.0, limit=1, wait_s=0.2, progress=None).run()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment with the project and nothing else; its `bin`. Versions and hashes are the lock's."""
    folder = tmp_path_factory.mktemp("light")
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    [wheel] = folder.glob("leyden-*.whl")
    lock, python = str(ROOT / "requirements/local.txt"), folder / "venv/bin/python"
    _run(UV, "venv", "--python", sys.executable, str(folder / "venv"))
    _run(UV, "pip", "install", "--python", str(python), "--constraints", lock, str(wheel))
    yield python.parent
    shutil.rmtree(folder)


def test_an_agents_environment_takes_on_an_http_client_and_opentelemetry(installed: Path) -> None:
    listed = json.loads(_run(UV, "pip", "list", "--python", str(installed / "python"), "--format", "json"))
    assert {each["name"] for each in listed} == {"leyden"} | HTTP | TELEMETRY
    assert [path.name for path in installed.parent.glob("lib/python*/site-packages/leyden/py.typed")] == ["py.typed"]
    size = sum(path.stat().st_size for path in installed.parent.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < MAX_MIB << 20


def test_an_agent_and_a_runner_work_there(installed: Path, gateway: FakeGateway) -> None:
    gateway.enqueue(1)
    assert _run(str(installed / "python"), "-c", AGENT, gateway.url, KEY) == "3\n"
    assert sorted(len(gateway.spans_of(trace)) for trace in gateway.ends) == [1, 4]


def test_leyden_run_works_there(installed: Path, gateway: FakeGateway) -> None:
    command = [str(installed / "leyden"), "run", "--gateway", gateway.url, "--api-key", KEY]
    assert _run(*command, "--", "echo", "hello") == "hello\n"
    assert [end["output"] for [end] in gateway.ends.values()] == ["hello"]


def test_other_commands_say_what_they_need(installed: Path) -> None:
    done = subprocess.run(
        [installed / "leyden", "status"], env=_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "pip install 'leyden[services,local]'" in done.stderr
    assert "`leyden run`" in done.stderr


def _run(*argv: str) -> str:
    done = subprocess.run(argv, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
