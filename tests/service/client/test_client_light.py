"""An agent's environment: with the core dependencies alone, whatever else this one has installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from client_support import KEY, FakeGateway

ROOT = Path(__file__).parents[3]

GUARD = """
import importlib.abc, sys

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)

sys.meta_path.insert(0, Guard())
"""
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
print(sorted({"torch", "aiokafka", "pydantic", "redis", "typer", "rich", "numpy"} & set(sys.modules)))
"""
COMMAND = "import sys; from leyden.cli import main; sys.argv[:] = {argv!r}; main()"


def core_modules() -> set[str]:
    """Import names of what `pip install leyden` brings, and of what that brings."""
    open_, seen = core_requirements(), set()
    while open_:
        name = re.sub(r"[-_.]+", "-", open_.pop().name).lower()
        if name in seen:
            continue
        seen.add(name)
        wanted = [Requirement(line) for line in metadata.requires(name) or ()]
        open_ += [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    of_module = metadata.packages_distributions()
    return {"leyden"} | {
        module for module, owners in of_module.items() if {re.sub(r"[-_.]+", "-", o).lower() for o in owners} & seen
    }


def core_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "services"), str(ROOT / "shared")])
    guarded = f"ALLOWED = {core_modules()!r}\n{GUARD}\n{program}"
    return subprocess.run(
        [sys.executable, "-c", guarded, *arguments],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_core_is_an_http_client_and_opentelemetry() -> None:
    names = {requirement.name for requirement in core_requirements()}
    assert names == {"httpx", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}
    assert not {"pydantic", "typer", "rich", "numpy", "redis"} & core_modules()


def test_an_agent_and_a_runner_work_with_the_core_alone(gateway: FakeGateway) -> None:
    gateway.enqueue(1)
    done = run(AGENT, gateway.url, KEY)
    assert (done.stdout.splitlines(), done.returncode) == (["3", "[]"], 0), done.stderr
    assert sorted(len(gateway.spans_of(trace)) for trace in gateway.ends) == [1, 4]


def test_leyden_run_works_with_the_core_alone(gateway: FakeGateway) -> None:
    argv = ["leyden", "run", "--gateway", gateway.url, "--api-key", KEY, "--", "echo", "hello"]
    done = run(COMMAND.format(argv=argv))
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert [end["output"] for [end] in gateway.ends.values()] == ["hello"]


def test_other_commands_say_what_they_need() -> None:
    done = run(COMMAND.format(argv=["leyden", "status"]))
    assert done.returncode == 1
    assert "pip install 'leyden[services,local]'" in done.stderr
    assert "`leyden run`" in done.stderr
