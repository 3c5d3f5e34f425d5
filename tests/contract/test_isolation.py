"""Services are apart: none imports another, and the light ones never load what only the trainer needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roots import ROOT, python_path

SERVICES = sorted(
    folder.name for folder in (ROOT / "services" / "leyden").iterdir() if (folder / "__main__.py").exists()
)
LIGHT = ["gateway", "ingest", "reward", "credit", "registry", "policy"]
HEAVY = {"torch", "transformers", "vllm", "peft"}


def imported_modules(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def loaded_by(module: str) -> set[str]:
    """The top-level modules that importing `module` in a fresh interpreter loads."""
    code = f"import sys, {module}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    env = os.environ | {"PYTHONPATH": python_path()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_six_services_and_the_policy_agent_are_there() -> None:
    assert SERVICES == ["credit", "gateway", "ingest", "policy", "registry", "reward", "trainer"]


@pytest.mark.parametrize("service", LIGHT)
def test_a_light_service_never_loads_torch(service: str) -> None:
    assert not loaded_by(f"leyden.{service}.app") & HEAVY


def test_the_client_library_loads_no_part_of_the_services_plumbing() -> None:
    assert not loaded_by("leyden.client") & (HEAVY | {"pydantic", "aiokafka", "faststream", "redis", "numpy"})


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    others = {f"leyden.{other}" for other in SERVICES if other != service}
    for source in (ROOT / "services" / "leyden" / service).rglob("*.py"):
        reached = {name for name in imported_modules(source) if any(f"{name}.".startswith(f"{o}.") for o in others)}
        assert not reached, f"{source.relative_to(ROOT)} imports {reached}"


def test_shared_code_imports_no_service() -> None:
    services = {f"leyden.{service}" for service in SERVICES}
    for source in (ROOT / "shared" / "leyden").rglob("*.py"):
        reached = {name for name in imported_modules(source) if any(f"{name}.".startswith(f"{s}.") for s in services)}
        assert not reached, f"{source.relative_to(ROOT)} imports {reached}"
