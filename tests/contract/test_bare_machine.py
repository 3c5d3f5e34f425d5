"""What a machine must have is what `tools/bare` gives; whatever else is run by name comes in a locked package."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from roots import ROOT, SOURCE_ROOTS

BARE = ROOT / "tools/bare"
FOLDERS = (*SOURCE_ROOTS, ROOT / "tests", ROOT / "tools", ROOT / "examples")
STARTERS = {"subprocess.run", "subprocess.Popen", "asyncio.create_subprocess_exec", "shutil.which"}
OURS = {"leyden", "kafka.tools.StorageTool"}
"""Our own command, looked for to name it in hints, and a class that the JDK in a wheel runs."""


def programs_of_bare() -> set[str]:
    found = re.search(r'PROGRAMS="(.*?)"', BARE.read_text(), re.DOTALL)
    assert found is not None
    return set(found[1].split())


def literal_programs(tree: ast.AST) -> Iterator[str]:
    """Programs that a module starts, or keeps in a variable named for a command, by a name written out."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name), args=[command, *_]):
                if f"{owner}.{name}" in STARTERS:
                    yield from first_word(command)
            case ast.Assign(targets=[ast.Name(id="command" | "argv")], value=command):
                yield from first_word(command)


def first_word(node: ast.expr) -> Iterator[str]:
    if isinstance(node, (ast.List, ast.Tuple)) and node.elts:
        yield from first_word(node.elts[0])
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def bare(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([BARE, *command], env=env, capture_output=True, text=True, check=False)


def test_every_program_started_by_name_is_one_that_a_bare_machine_has() -> None:
    allowed = programs_of_bare() | OURS
    used = {
        (str(file.relative_to(ROOT)), program)
        for folder in FOLDERS
        for file in folder.rglob("*.py")
        for program in literal_programs(ast.parse(file.read_text()))
    }
    assert {program for _, program in used} >= {"sleep", "git"}, "this test finds none"
    assert {(file, program) for file, program in used if program not in allowed} == set()


def test_only_the_cache_module_knows_the_home_folder() -> None:
    named = re.compile(r"Path\.home|XDG_|\"~")
    found = {file.name for root in SOURCE_ROOTS for file in root.rglob("*.py") if named.search(file.read_text())}
    assert found == {"cache.py"}


def test_a_bare_machine_has_the_index_configuration_of_its_caller_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "caller"
    home.mkdir()
    (home / ".npmrc").write_text("cafile=/x")
    (home / ".cache").mkdir()
    seen = bare("env", HOME=str(home), PIP_INDEX_URL="i", PIP_CACHE_DIR="c", https_proxy="p", SECRET="s", USER="u")
    names = dict(line.split("=", 1) for line in seen.stdout.splitlines())
    assert set(names) == {"HOME", "PATH", "PIP_INDEX_URL", "https_proxy"}, seen.stderr
    assert names["HOME"] != str(home) and not Path(names["HOME"]).exists(), "it is removed at the end"
    listed = bare("sh", "-c", 'ls -A "$HOME"; cat "$HOME/.npmrc"', HOME=str(home))
    assert listed.stdout == ".npmrc\ncafile=/x"


def test_a_program_of_the_callers_path_is_not_found_there(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    done = bare("bash", "-c", "planted", PATH=f"{tmp_path}:{os.environ['PATH']}", HOME=str(tmp_path))
    assert done.returncode == 127
    assert "planted: command not found" in done.stderr


def test_its_python_is_no_virtual_environment_and_makes_one_that_outlives_it(tmp_path: Path) -> None:
    made = bare("python3", "-m", "venv", "--without-pip", str(tmp_path / "env"), HOME=str(tmp_path))
    assert made.returncode == 0, made.stderr
    subprocess.run([tmp_path / "env/bin/python", "-c", "import ssl"], check=True)


def test_a_named_home_is_kept_for_the_next_command_and_exit_status_is_the_commands(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    assert bare("--home", kept, "sh", "-c", "touch ~/here; exit 3", HOME=str(tmp_path)).returncode == 3
    assert bare("--home", kept, "sh", "-c", "ls ~", HOME=str(tmp_path)).stdout == "here\n"
