"""A worker process: reads frames of views and writes an answer for each, until its input ends.

Started by `sandbox.process`. It is two processes: the function runs in the second one, confined; the first one, the
keeper, ends every process that the function has started, when the second one or the service ends. What the function
prints goes to the service's standard error, not into the pipes.
"""

import asyncio
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from leyden.reward.core.answer import Answer
from leyden.reward.core.view import RolloutView
from leyden.reward.graders.confined.confinement import drop_capabilities, write_only_in
from leyden.reward.graders.confined.reaper import become_reaper, die_with_parent, end_all
from leyden.reward.sandbox.call import AnyFunction, await_many, await_one, call_many, call_one, is_async
from leyden.reward.sandbox.limits import limit_cpu, limit_memory
from leyden.reward.sandbox.spec import CallSpec, UnusableFunctionError
from leyden.reward.sandbox.wire import answer_frame, decode_views, framed, printable, read_frame

READY = b"ready"
READY_ASYNC = b"ready, async"
WAITED_FOR = {signal.SIGTERM, signal.SIGCHLD}
Say = Callable[[int, Answer], None]


def main(parent: int) -> None:
    """Start the process that answers, and keep it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    become_reaper()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # the service has ended already
        os._exit(1)
    folder = tempfile.mkdtemp(prefix="leyden-reward-")
    if (child := os.fork()) == 0:
        die_with_parent()
        os.setsid()  # so that the keeper is not in the group that the function may kill
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        os.environ.update(HOME=folder, TMPDIR=folder)
        tempfile.tempdir = folder
        _answer(folder)
        return
    for standard in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)  # so that the service sees the child's end
    status = _ended(child)
    end_all(child)
    shutil.rmtree(folder, ignore_errors=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if status is None:
        os._exit(0)
    if os.WIFSIGNALED(status):  # the service reads from the status how the function ended
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        if os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _ended(child: int) -> int | None:
    """The child's status once it has ended; None if the service wants the end or has ended itself."""
    while signal.sigwait(WAITED_FOR) != signal.SIGTERM:
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid:
            if pid == child:
                return status
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
    return None


def _answer(folder: str) -> None:
    """Load the function, report that, and answer frames."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    spec = CallSpec.decode(read_frame(incoming) or b"{}")
    try:
        drop_capabilities()
        write_only_in([folder, *spec.writable])
        function = spec.load()
    except Exception as error:  # noqa: BLE001 - any error of the import: the service reports it and does not start
        text = str(error) if isinstance(error, UnusableFunctionError) else f"{type(error).__name__}: {error}"
        _write(outgoing, framed(printable(text).encode()))
        return
    limit_memory(spec.memory_mb)
    _write(outgoing, framed(READY_ASYNC if is_async(function) else READY))
    myself, answers = os.getpid(), _answers(function, spec)

    def say(index: int, answer: Answer) -> None:
        if os.getpid() != myself:  # a forked process left by the function must not answer again
            os._exit(0)
        _write(outgoing, answer_frame(index, answer))

    while (frame := read_frame(incoming)) is not None:
        views = decode_views(frame)
        limit_cpu(spec.timeout_s * len(views))
        answers(views, say)


def _answers(function: AnyFunction, spec: CallSpec) -> Callable[[Sequence[RolloutView], Say], None]:
    """The function that answers one frame."""
    if is_async(function):
        loop = asyncio.new_event_loop()
        several = _batch_aloud if spec.batched else _all_aloud
        return lambda views, say: loop.run_until_complete(several(function, views, spec.timeout_s, say))
    if spec.batched:
        return lambda views, say: _say_all(call_many(function, views), say)
    return lambda views, say: _one_by_one(function, views, say)


def _one_by_one(function: AnyFunction, views: Sequence[RolloutView], say: Say) -> None:
    for index, view in enumerate(views):
        say(index, call_one(function, view))


def _say_all(answers: Sequence[Answer], say: Say) -> None:
    for index, answer in enumerate(answers):
        say(index, answer)


async def _batch_aloud(function: AnyFunction, views: Sequence[RolloutView], timeout_s: float, say: Say) -> None:
    _say_all(await await_many(function, views, timeout_s), say)


async def _all_aloud(function: AnyFunction, views: Sequence[RolloutView], timeout_s: float, say: Say) -> None:
    async def one(index: int, view: RolloutView) -> None:
        say(index, await await_one(function, view, timeout_s))

    work: list[Coroutine[Any, Any, None]] = [one(index, view) for index, view in enumerate(views)]
    await asyncio.gather(*work)


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
