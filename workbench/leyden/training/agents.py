"""Runs the agent of a training: in a process of its own, or, if it is given as a function, on a thread of this one."""

import asyncio
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from leyden.client.executors import Command
from leyden.client.named import Named
from leyden.client.runner import Runner
from leyden.stack.errors import StackError
from leyden.stack.plan import python_env
from leyden.stack.processes import ProcessSpec, ProcessState, Supervisor
from leyden.training.plan import TrainPlan
from leyden.training.stacks import RunningStack
from leyden.training.watch import Supervised

DRAIN_S = 5.0
"""How long running rollouts may go on when the training ends. The others are retried when it goes on."""
JOIN_S = 30.0


@contextmanager
def agent_of(plan: TrainPlan, stack: RunningStack) -> Iterator[Supervised]:
    """The plan's agent, at work on the stack's queue until the end of the block."""
    if not isinstance(plan.agent, Named | Command):
        with _thread(plan, stack) as thread:
            yield thread
        return
    argv = (sys.executable, "-m", "leyden.cli", "runner", *_arguments(plan))
    env = {"LEYDEN_GATEWAY_URL": stack.gateway_url, "LEYDEN_API_KEY": stack.api_key}
    env |= {"PYTHONPATH": python_env(stack.config)["PYTHONPATH"], "PYTHONUNBUFFERED": "1"}
    with Supervisor(f"{stack.folder.stack_id}-agent", stack.folder.logs) as supervisor:
        supervisor.start(ProcessSpec(name="agent", argv=argv, env=env))
        yield supervisor


def _arguments(plan: TrainPlan) -> list[str]:
    options = ["--concurrency", str(plan.concurrency), "--mode", plan.mode, "--drain", str(DRAIN_S), "--no-progress"]
    if isinstance(plan.agent, Command):
        reward = ["--reward-from", plan.agent.reward_from] if plan.agent.reward_from else []
        return [*options, *reward, "--command", shlex.join(plan.agent.argv)]
    assert isinstance(plan.agent, Named)
    return [*options, plan.agent.reference]


class _Thread:
    """A runner on a thread, watched like a process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="leyden-agent", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise StackError if the runner ended by an error."""
        if self._failure is not None:
            raise StackError(f"The runner of the agent ended: {self._failure}") from self._failure

    def states(self) -> list[ProcessState]:
        """None: it is no process."""
        return []

    def stop(self) -> None:
        self._runner.stop()
        self._thread.join(JOIN_S)

    def _serve(self) -> None:
        try:
            asyncio.run(self._runner.serve())
        except BaseException as error:  # noqa: BLE001 - shown by `check`, in the training's thread
            self._failure = error


@contextmanager
def _thread(plan: TrainPlan, stack: RunningStack) -> Iterator[Supervised]:
    assert not isinstance(plan.agent, Named)
    runner = Runner(
        plan.agent,
        stack.gateway_url,
        stack.api_key,
        concurrency=plan.concurrency,
        mode=plan.mode,
        drain_s=DRAIN_S,
    )
    thread = _Thread(runner)
    try:
        yield thread
    finally:
        thread.stop()
