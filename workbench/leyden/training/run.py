"""Runs a training: a stack, the agent beside it, the loop, and the result."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from rich.console import Console

from leyden.stack.progress import Progress
from leyden.training.agents import agent_of
from leyden.training.loop import Loop, result_of
from leyden.training.plan import TrainPlan
from leyden.training.results import Training
from leyden.training.run_file import mark_started
from leyden.training.stacks import RunningStack, stack_of
from leyden.training.state import TrainState
from leyden.training.view import View

Started = Callable[[RunningStack], None]


def run_training(plan: TrainPlan, console: Console, started: Started = lambda _: None) -> tuple[Training, TrainState]:
    """Train until the plan is done; `started` is called when the stack is up.

    Raises StackError, and KeyboardInterrupt after Ctrl-C; then the same plan goes on from where this one was stopped.
    """
    state = TrainState(plan.schedule, plan.tasks, plan.stack.policy)
    progress = Progress(console)
    with ExitStack() as open_ones:
        stack = open_ones.enter_context(stack_of(plan.stack, progress))
        progress.close()
        if plan.stack.run_file is not None:
            mark_started(plan.stack.run_file)
        started(stack)
        state.began = time.monotonic()
        agent = open_ones.enter_context(agent_of(plan, stack))
        view = View(console)
        try:
            _run(Loop(plan, stack, agent, state, view))
        finally:
            view.close()
            console.print("stopping the agent and the stack", style="dim")
    return result_of(plan, state), state


def _run(loop: Loop) -> None:
    """Run it here, or on another thread if an event loop runs in this one (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(loop.run())
        return
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(lambda: asyncio.run(loop.run())).result()
