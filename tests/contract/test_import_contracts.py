"""The import contracts of pyproject.toml fail when somebody breaks them; a core's outside modules are a closed list."""

import ast
import copy
import re
import tomllib
from typing import Any

import grimp
import pytest
from importlinter import Contract
from importlinter.configuration import configure
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

import leyden
from roots import ROOT

TYPES: dict[str, type[Contract]] = {"layers": LayersContract, "forbidden": ForbiddenContract}
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS: dict[str, dict[str, Any]] = {one["name"]: one for one in LINTER["contracts"]}
WHOLE, WORKBENCH, SERVICE, KAFKA, CORE = CONTRACTS
CORES = sorted(
    file for pattern in ("*/core.py", "*/core/**/*.py") for file in (ROOT / "services" / "leyden").glob(pattern)
)
PURE = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "collections.abc", "contextlib",
    "contextvars", "dataclasses", "datetime", "email.utils", "enum", "fnmatch", "functools", "hashlib", "heapq", "hmac",
    "itertools", "json", "math", "numbers", "pathlib", "re", "re._constants", "re._parser", "struct", "types", "typing",
    "urllib.parse", "zlib",
}  # fmt: skip
PURE_PACKAGES = {
    "cramjam", "google.protobuf", "jsonschema", "msgspec", "numpy", "opentelemetry.proto", "orjson", "pydantic",
    "referencing", "torch", "transformers",
}  # fmt: skip
SHARED = {
    "leyden.engine_face",
    "leyden.events",
    "leyden.extensions",
    "leyden.failures",
    "leyden.ids",
    "leyden.retry_after",
    "leyden.scalar",
}
IO = re.compile(
    r"\b(open|print|input|(datetime|date)\.(now|utcnow|today)|Path\.(cwd|home))\(|\.(read|write)_(text|bytes)\("
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    configure()
    # As tools/lint_imports.py: grimp finds a package by its spec, which knows only one of the three source roots.
    assert leyden.__spec__ is not None
    assert leyden.__spec__.submodule_search_locations is not None
    leyden.__spec__.submodule_search_locations[:] = list(leyden.__path__)
    return grimp.build_graph(
        "leyden", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def kept(name: str, graph: grimp.ImportGraph) -> bool:
    options = {key: value for key, value in CONTRACTS[name].items() if key not in ("name", "type")}
    options |= {
        key: str(value) for key, value in options.items() if isinstance(value, bool)
    }  # as the linter reads them
    contract = TYPES[CONTRACTS[name]["type"]](name, LINTER, options)
    return contract.check(graph, verbose=False).kept


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_is_kept(name: str, graph: grimp.ImportGraph) -> None:
    assert kept(name, copy.deepcopy(graph))


@pytest.mark.parametrize(
    ("name", "importer", "imported"),
    [
        (WHOLE, "leyden.gateway.core.keys", "leyden.credit.core.merge"),
        (WHOLE, "leyden.credit.handlers", "leyden.reward.handlers"),
        (WHOLE, "leyden.reward.app", "leyden.reading.log"),
        (WHOLE, "leyden.kafka.publisher", "leyden.gateway.core.keys"),
        (WHOLE, "leyden.failures", "leyden.reward.core.settle"),
        (WHOLE, "leyden.service", "leyden.stack.config"),
        (WHOLE, "leyden.events.codec", "leyden.kafka.topics"),
        (WHOLE, "leyden.telemetry.ops", "leyden.kafka.admin"),
        (WHOLE, "leyden.client", "leyden.kafka.publisher"),
        (WHOLE, "leyden.client", "leyden.state.evidence"),
        (WHOLE, "leyden.stack.plan", "leyden.cli.app"),
        (WHOLE, "leyden.inspect.why", "leyden.replay.compare"),
        (WORKBENCH, "leyden.inspect.why", "leyden.credit.handlers"),
        (WORKBENCH, "leyden.cli.app", "leyden.gateway.app"),
        (WORKBENCH, "leyden.replay.run", "leyden.reward.adapters"),
        (WORKBENCH, "leyden.stack.plan", "leyden.policy.settings"),
        (SERVICE, "leyden.gateway.handlers", "leyden.gateway.http"),
        (SERVICE, "leyden.gateway.http", "leyden.gateway.adapters"),
        (SERVICE, "leyden.gateway.handlers", "leyden.gateway.rpc"),
        (SERVICE, "leyden.reward.handlers", "leyden.reward.judges"),
        (SERVICE, "leyden.reward.sandbox", "leyden.reward.adapters"),
        (SERVICE, "leyden.reward.graders", "leyden.reward.sandbox"),
        (SERVICE, "leyden.ingest.dialects", "leyden.ingest.handlers"),
        (SERVICE, "leyden.policy.engines", "leyden.policy.handlers"),
        (SERVICE, "leyden.credit.grouping", "leyden.credit.handlers"),
        (SERVICE, "leyden.credit.handlers", "leyden.credit.sweep"),
        (SERVICE, "leyden.trainer.model", "leyden.trainer.learner"),
        (SERVICE, "leyden.trainer.checkpoint", "leyden.trainer.handlers"),
        (SERVICE, "leyden.credit.core.merge", "leyden.credit.ports"),
        (KAFKA, "leyden.credit.handlers", "aiokafka"),
        (KAFKA, "leyden.reading.log", "aiokafka"),
        (CORE, "leyden.credit.core.merge", "time"),
        (CORE, "leyden.events.codec", "socket"),
        (CORE, "leyden.reward.core.settle", "leyden.clock"),
    ],
)
def test_a_planted_import_breaks_its_contract(
    name: str, importer: str, imported: str, graph: grimp.ImportGraph
) -> None:
    planted = copy.deepcopy(graph)
    assert importer in planted.modules
    planted.add_import(importer=importer, imported=imported)
    assert not kept(name, planted)


@pytest.mark.parametrize("module", ["leyden.newcomer", "leyden.credit.newcomer", "leyden.gateway.newcomer"])
def test_a_module_in_no_layer_breaks_the_contract(module: str, graph: grimp.ImportGraph) -> None:
    planted = copy.deepcopy(graph)
    planted.add_module(module)
    assert not kept(WHOLE if module.count(".") == 1 else SERVICE, planted)


def test_the_workbench_may_import_a_core(graph: grimp.ImportGraph) -> None:
    planted = copy.deepcopy(graph)
    planted.add_import(importer="leyden.inspect.why", imported="leyden.credit.core.merge")
    assert kept(WORKBENCH, planted)
    assert kept(WHOLE, planted)


def test_every_workbench_package_is_held_to_the_cores() -> None:
    packages = {f"leyden.{one.name}" for one in (ROOT / "workbench/leyden").iterdir() if not one.name.startswith("_")}
    assert packages == set(CONTRACTS[WORKBENCH]["source_modules"])


def test_every_service_is_held_to_its_layers() -> None:
    services = {f"leyden.{file.parent.name}" for file in (ROOT / "services/leyden").glob("*/__init__.py")}
    assert services == set(CONTRACTS[SERVICE]["containers"]) == set(CONTRACTS[WORKBENCH]["forbidden_modules"])


def impure(source: str, service: str) -> set[str]:
    """Modules that a core of `service` may not import at run time, and calls that do IO or read the clock."""
    tree = ast.parse(source)
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and (found := IO.search(f"{ast.unparse(node.func)}(")):
            names.add(found.group())
    packages = PURE_PACKAGES | SHARED | {f"leyden.{service}.core"}
    return {name for name in names - PURE if not any(f"{name}.".startswith(f"{one}.") for one in packages)}


def test_a_core_imports_only_what_does_no_io() -> None:
    found = {str(file.relative_to(ROOT)): impure(file.read_text(), file.relative_to(ROOT).parts[2]) for file in CORES}
    assert {file: names for file, names in found.items() if names} == {}
    assert len(found) > 100


@pytest.mark.parametrize(
    "line",
    [
        "import requests",
        "from urllib.request import urlopen",
        "import threading",
        "from os import environ",
        "from leyden.kafka import Outgoing",
        "from leyden.credit.ports import Stores",
        "at = datetime.now(UTC)",
        "text = Path('x').read_text()",
        "open('x')",
    ],
)
def test_a_planted_line_of_io_in_a_core_is_found(line: str) -> None:
    assert impure(line, "credit")


def private_names(source: str) -> set[str]:
    """The private modules and names of ours that a source file imports."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports if node.module for alias in node.names}
    return {name for name in names if name.startswith("leyden.") and "._" in name.replace(".__main__", "")}


def test_no_test_imports_a_private_name() -> None:
    found = {str(file): private_names(file.read_text()) for file in (ROOT / "tests").rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == {}
    assert private_names("from leyden.service import _server, main") == {"leyden.service._server"}
