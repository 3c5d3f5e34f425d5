"""Reward functions in real worker processes, made to break in every way that there is."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from leyden.events import Json
from leyden.kafka.liveness import Heartbeat
from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.functions import RolloutView, TaskView
from leyden.reward.sandbox.isolated import IsolatedFunction
from leyden.reward.sandbox.local import LocalFunction
from leyden.reward.sandbox.runner import Executor, FunctionRunner, RetriedFunction, RetrySettings
from leyden.reward.sandbox.spec import CallSpec
from leyden.reward.sandbox.views import Views
from leyden.settings import RunFileError
from unit.reward.reward_builders import ROLLOUT
from waiting import until

MODULE = "service.reward.functions_for_tests"
AT_ONCE = RetrySettings(retries=0, first_delay_s=0.01, suspend_after=0)
Isolated = Callable[..., IsolatedFunction]


def a_view(output: Json) -> RolloutView:
    return RolloutView(ROLLOUT, 0, TaskView(), (), (), output, "succeeded", None)


def views(*outputs: Json) -> Views:
    return Views([a_view(output) for output in outputs])


@pytest.fixture
async def isolated(tmp_path: Path) -> AsyncIterator[Isolated]:
    made: list[IsolatedFunction] = []

    def make(name: str, workers: int = 1, **fields: Any) -> IsolatedFunction:
        usual: dict[str, Any] = {"timeout_s": 1.0, "memory_mb": 300, "writable": (str(tmp_path),)}
        spec = CallSpec(entry=f"{MODULE}:{name}", **(usual | fields))
        made.append(IsolatedFunction(spec, workers))
        return made[-1]

    yield make
    for function in made:
        await function.close()


async def answers(executor: Executor, *outputs: Json, settings: RetrySettings = AT_ONCE) -> list[Answer]:
    return await RetriedFunction("f", executor, settings).answers(views(*outputs))


def values(found: list[Answer]) -> list[float | None]:
    return [answer.values.get("") for answer in found]


async def test_every_way_to_break_is_named_and_harms_nobody_else(isolated: Isolated) -> None:
    kinds = {
        "loop": FailureKind.TIMEOUT,
        "memory": FailureKind.MEMORY,
        "exit": FailureKind.LOST,
        "kill": FailureKind.LOST,
        "raise": FailureKind.EXCEPTION,
        "sys.exit": FailureKind.EXCEPTION,
        "surrogate": FailureKind.EXCEPTION,
        "nan": FailureKind.MALFORMED,
        "text": FailureKind.MALFORMED,
        "list": FailureKind.MALFORMED,
        "huge": FailureKind.MALFORMED,
    }
    outputs = [output for broken in kinds for output in (broken, f"after {broken}")]
    found = dict(zip(outputs, await answers(isolated("as_told"), *outputs), strict=True))
    assert {broken: found[broken].failure for broken in kinds} == kinds
    assert [found[f"after {broken}"] for broken in kinds] == [Answer({"": 6.0 + len(broken)}) for broken in kinds]
    assert "SIGKILL" in found["kill"].message
    assert found["raise"].message == "RuntimeError: the judge is away"


async def test_a_fork_that_a_function_leaves_answers_nothing(isolated: Isolated) -> None:
    assert values(await answers(isolated("as_told"), "fork", "x", "fork", "xx")) == [3.0, 1.0, 3.0, 2.0]


async def test_what_a_function_prints_is_no_answer(isolated: Isolated) -> None:
    assert await answers(isolated("nothing"), "x") == [Answer()]


async def test_async_calls_run_side_by_side(isolated: Isolated) -> None:
    function = isolated("later")
    await function.start()
    began = time.monotonic()
    assert values(await answers(function, *("x" * n for n in range(20)))) == [float(n) for n in range(20)]
    assert time.monotonic() - began < 3.0  # one after the other: 6 s


async def test_an_async_call_that_never_ends_keeps_no_other_waiting(isolated: Isolated) -> None:
    found = await answers(isolated("never"), "a", "never", "bb")
    assert [answer.failure for answer in found] == [None, FailureKind.TIMEOUT, None]


@pytest.mark.parametrize("name", ["many", "many_later"])
async def test_a_batched_function_is_called_with_all_views(isolated: Isolated, name: str) -> None:
    assert values(await answers(isolated(name, batched=True), "a", "bb", "ccc")) == [1.0, 2.0, 3.0]


async def test_a_batched_function_with_too_few_results_has_failed_for_all(isolated: Isolated) -> None:
    found = await answers(isolated("too_few", batched=True), "a", "bb")
    assert {(a.failure, a.message) for a in found} == {(FailureKind.MALFORMED, "1 results for 2 rollouts")}


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_worker_killed_in_the_middle_is_replaced_and_the_call_made_again(
    isolated: Isolated, tmp_path: Path
) -> None:
    function, marker = isolated("waits_once", timeout_s=60.0), tmp_path / "marker"
    settings = RetrySettings(retries=1, first_delay_s=0.01)
    task = asyncio.create_task(answers(function, str(marker), "/", settings=settings))
    await until(marker.exists)
    pid = int(marker.read_text())
    os.kill(pid, signal.SIGKILL)
    assert values(await task) == [1.0, 1.0]
    assert not runs(pid)


async def test_a_worker_killed_while_idle_costs_one_retry(isolated: Isolated) -> None:
    function = isolated("pid")
    [first] = values(await answers(function, "x"))
    assert first is not None
    os.kill(int(first), signal.SIGKILL)
    [second] = values(await answers(function, "x", settings=RetrySettings(retries=1, first_delay_s=0.01)))
    assert second is not None
    assert second != first


async def test_a_cancelled_call_leaves_no_process(isolated: Isolated, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    task = asyncio.create_task(answers(isolated("loops", timeout_s=60.0), str(marker)))
    await until(marker.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(int(marker.read_text()))


async def test_a_worker_dies_with_the_service(tmp_path: Path) -> None:
    """The service is killed while its worker is in an endless loop: nobody is left who could end it."""
    marker = tmp_path / "marker"
    script = f"""
import asyncio
from service.reward.test_function_workers import IsolatedFunction, CallSpec, answers
async def main():
    spec = CallSpec(entry="{MODULE}:loops", timeout_s=600.0, writable=({str(tmp_path)!r},))
    await answers(IsolatedFunction(spec), {str(marker)!r})
asyncio.run(main())
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=env)
    await until(marker.exists)
    worker = int(marker.read_text())
    assert runs(worker)
    service.kill()
    await service.wait()
    await until(lambda: not runs(worker))


async def test_an_endless_function_does_not_hold_up_another(isolated: Isolated) -> None:
    endless = RetriedFunction("endless", isolated("as_told", timeout_s=2.0), AT_ONCE)
    quick = RetriedFunction("quick", isolated("length"), AT_ONCE)
    runner = FunctionRunner([endless, quick])
    await runner.start()
    done = asyncio.create_task(endless.answers(views("loop")))
    began = time.monotonic()
    assert values(await quick.answers(views("abc"))) == [3.0]
    assert time.monotonic() - began < 1.0
    assert (await done)[0].failure is FailureKind.TIMEOUT


async def test_a_failed_call_is_tried_again_before_it_is_named(isolated: Isolated, tmp_path: Path) -> None:
    settings = RetrySettings(retries=2, first_delay_s=0.01)
    assert values(await answers(isolated("fails_once"), str(tmp_path / "marker"), settings=settings)) == [1.0]
    found = await answers(isolated("fails_once"), str(tmp_path / "other"))
    assert found[0].failure is FailureKind.EXCEPTION


async def test_several_workers_share_the_calls_of_one_function(isolated: Isolated) -> None:
    found = values(await answers(isolated("pid", workers=2), *("x" for _ in range(64))))
    assert len(set(found)) == 2


@pytest.mark.parametrize("name", ["missing", "os"])
async def test_a_function_that_is_not_there_stops_the_start(isolated: Isolated, name: str) -> None:
    with pytest.raises(RunFileError, match=f"{MODULE}:{name}"):
        await isolated(name).start()


@pytest.mark.parametrize(
    ("name", "batched"), [("length", False), ("later", False), ("many", True), ("many_later", True)]
)
async def test_inside_the_service_the_answers_are_the_same(isolated: Isolated, name: str, batched: bool) -> None:
    here = LocalFunction(CallSpec(entry=f"{MODULE}:{name}", batched=batched))
    there = isolated(name, batched=batched)
    assert await answers(here, "a", "bb") == await answers(there, "a", "bb") == [Answer({"": 1.0}), Answer({"": 2.0})]


@pytest.mark.parametrize(("name", "batched", "beats"), [("length", False, 3), ("later", False, 3), ("many", True, 0)])
async def test_every_answer_inside_the_service_is_a_sign_of_life(name: str, batched: bool, beats: int) -> None:
    heartbeat = Heartbeat()
    here = LocalFunction(CallSpec(entry=f"{MODULE}:{name}", batched=batched), heartbeat.beat)
    await answers(here, "a", "bb", "ccc")
    assert heartbeat.beats == beats


async def test_every_answer_and_every_broken_worker_is_a_sign_of_life() -> None:
    """A batch of slow calls takes longer than a probe is patient; a worker that is killed took its time too."""
    heartbeat = Heartbeat()
    function = IsolatedFunction(CallSpec(entry=f"{MODULE}:as_told", timeout_s=0.5), 1, heartbeat.beat)
    try:
        found = await answers(function, "a", "loop", "b")
    finally:
        await function.close()
    assert [answer.failure for answer in found] == [None, FailureKind.TIMEOUT, None]
    assert heartbeat.beats == 3
