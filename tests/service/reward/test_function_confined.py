"""What a reward function may not do: leave processes, write outside its folder, read secrets, signal the service."""

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import pytest

from leyden.events import Json
from leyden.reward.core.answer import Answer
from leyden.reward.sandbox.isolated import IsolatedFunction
from leyden.reward.sandbox.process import environment
from leyden.reward.sandbox.spec import CallSpec
from service.reward.test_function_workers import MODULE, answers, runs
from waiting import until

SECRET = "redis://:a-secret-of-the-service@redis:6379"
LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1)
needs_landlock = pytest.mark.skipif(LANDLOCK < 6, reason="the kernel has no Landlock with scopes")


async def one(name: str, output: Json, **fields: object) -> Answer:
    function = IsolatedFunction(CallSpec(entry=f"{MODULE}:{name}", timeout_s=20.0, **fields))  # type: ignore[arg-type]
    try:
        return (await answers(function, output))[0]
    finally:
        await function.close()


async def test_no_daemon_outlives_the_worker(tmp_path: Path) -> None:
    marker = tmp_path / "daemon"
    assert (await one("leaves_a_daemon", str(marker), writable=(str(tmp_path),))).values == {"": 1.0}
    assert not runs(int(marker.read_text()))


@pytest.mark.parametrize("output", ["exit", "kill", "kill group"])
async def test_no_daemon_outlives_a_worker_that_breaks(tmp_path: Path, output: str) -> None:
    marker = tmp_path / "daemon"
    spec = CallSpec(entry=f"{MODULE}:leaves_a_daemon_and_breaks", timeout_s=20.0, writable=(str(tmp_path),))
    function = IsolatedFunction(spec)
    [answer] = await answers(function, [str(marker), output])
    assert answer.failure is not None
    await until(lambda: not runs(int(marker.read_text())))
    await function.close()


async def test_a_function_that_kills_its_process_group_does_not_kill_its_keeper() -> None:
    """Also where Landlock does not keep signals from the keeper."""
    assert (await one("is_in_its_keepers_group", None)).values == {"": 0.0}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def serving(tmp_path: Path, name: str, output: Json) -> tuple[asyncio.subprocess.Process, Path]:
    """A service with a secret in its environment, which asks `name` once and writes what it answers to a file."""
    result = tmp_path / "result"
    script = f"""
import asyncio, pathlib
from service.reward.test_function_workers import IsolatedFunction, CallSpec, answers
async def main():
    spec = CallSpec(entry="{MODULE}:{name}", timeout_s=600.0, writable=({str(tmp_path)!r},))
    [answer] = await answers(IsolatedFunction(spec), {output!r})
    pathlib.Path({str(result)!r}).write_text(repr(answer.values.get("", answer.message)))
asyncio.run(main())
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "REDIS_URL": SECRET}
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=env), result


async def test_no_daemon_outlives_a_service_that_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "daemon"
    service, _ = await serving(tmp_path, "leaves_a_daemon_and_stays", str(marker))
    await until(marker.exists)
    daemon = int(marker.read_text())
    assert runs(daemon)
    service.kill()
    await service.wait()
    await until(lambda: not runs(daemon))


@needs_landlock
async def test_nothing_of_the_services_environment_can_be_read(tmp_path: Path) -> None:
    service, result = await serving(tmp_path, "searches_every_process", SECRET[::-1])  # not in the command line
    assert await service.wait() == 0
    assert result.read_text() == "0.0", "places where the secret was found"


@needs_landlock
async def test_the_service_gets_no_signal_from_a_function() -> None:
    answer = await one("signals", os.getpid())
    assert "PermissionError" in answer.message


@needs_landlock
@pytest.mark.parametrize("way", ["write", "append", "truncate", "create", "remove", "rename", "link", "mkdir", "child"])
async def test_nothing_outside_its_folder_is_changed(tmp_path: Path, way: str) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    answer = await one("changes", [way, str(kept)])
    assert answer.failure is not None, answer
    assert (names(tmp_path), kept.read_text()) == (["kept"], "as it was")
    assert (await one("changes", [way, str(kept)], writable=(str(tmp_path),))).values == {"": 1.0}


@needs_landlock
async def test_a_pool_of_processes_needs_shared_memory() -> None:
    answer = await one("shares_work", None)
    assert answer.message == "PermissionError: [Errno 13] Permission denied"
    assert (await one("shares_work", None, writable=("/dev/shm",))).values == {"": 3.0}


async def test_its_own_folder_is_home_and_for_temporary_files_and_goes_with_it() -> None:
    answer = await one("uses_its_folder", None)
    assert answer.values == {"": 1.0}, answer.message


def test_only_named_variables_are_passed_on() -> None:
    ours = {"PATH": "/bin", "REDIS_URL": SECRET, "LEYDEN_GATEWAY_SECRET": "s", "JUDGE_KEY": "k", "LC_ALL": "C"}
    told = environment(CallSpec(environment=("JUDGE_KEY", "NOT_SET")), ours)
    assert {name: told[name] for name in told if name in ours} == {"PATH": "/bin", "JUDGE_KEY": "k", "LC_ALL": "C"}
    assert set(told) - set(ours) == {"PYTHONHASHSEED", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
