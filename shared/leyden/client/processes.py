"""Child processes: programs, and Python agents in their own processes. Starts, signals and ends them.

Each runs in its own process group, so that its children end with it, and is watched by the guard, so that it ends even
if this process is killed.
"""

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import IO, Any, TypeVar

from opentelemetry import trace

from leyden.client.claims import TRACEPARENT, Claim, context_of
from leyden.client.errors import ConfigurationError
from leyden.client.guard import guard
from leyden.client.outcomes import MAX_OUTPUT_TAIL, Outcome, call, infrastructure_failed, process_failed
from leyden.client.rollouts import enter_claim
from leyden.client.session import close, init

T = TypeVar("T")

GRACE_S = 2.0
"""Time between SIGTERM and SIGKILL."""
DRAIN_S = 1.0
"""How long output is read after a program's end; a child of it may keep the pipes open."""
MAX_OUTPUT = 64 * 1024
"""Bytes kept of the end of each output stream."""
READ_BYTES = 64 * 1024

Sink = Callable[[bytes], None]


@dataclass(frozen=True)
class ChildProcess:
    """A started child. `exited` is done when it has ended; the result is its exit code, or minus the signal."""

    pid: int
    group: bool
    """Whether it leads, or is about to create, a process group."""
    exited: "asyncio.Future[int]"

    @property
    def number(self) -> int:
        """As in kill(2): a process group's number is negative."""
        return -self.pid if self.group else self.pid

    def signal(self, number: int) -> None:
        """Signal the group, or the process while it has none. Does nothing after its end."""
        for target in dict.fromkeys((self.number, self.pid)):
            if target > 0 and self.exited.done():
                return
            with suppress(ProcessLookupError):
                os.kill(target, number)
                return

    async def terminate(self) -> None:
        """End the process and its group: SIGTERM, then SIGKILL after `GRACE_S`. Returns when it has ended."""
        if not self.exited.done():
            self.signal(signal.SIGTERM)
            await asyncio.wait({self.exited}, timeout=GRACE_S)
        if self.group or not self.exited.done():
            self.signal(signal.SIGKILL)
        await asyncio.wait({self.exited})
        guard.forget(self.number)


class Tail:
    """The last `MAX_OUTPUT` bytes of a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        """Append."""
        self._bytes += data
        if len(self._bytes) > 2 * MAX_OUTPUT:
            del self._bytes[:-MAX_OUTPUT]

    def text(self) -> str:
        """As text; invalid UTF-8 is replaced."""
        return self._bytes[-MAX_OUTPUT:].decode(errors="replace")


@dataclass(frozen=True)
class Output:
    """A program's output: keeps the end of each stream, and passes every chunk to the stream's sink."""

    out: Sink = lambda data: None
    err: Sink = lambda data: None
    stdout: Tail = field(default_factory=Tail)
    stderr: Tail = field(default_factory=Tail)

    def tail(self) -> str:
        """The end of stderr; of stdout when stderr is empty."""
        return (self.stderr.text().strip() or self.stdout.text().strip())[-MAX_OUTPUT_TAIL:]


@dataclass(frozen=True)
class ProgramEnd:
    """Exit code (negative: the signal) and the last output of a program."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def exit_code(self) -> int:
        """As a shell reports it: 128 + n for signal n."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


@dataclass(frozen=True)
class Program:
    """A running program."""

    child: ChildProcess
    readers: "frozenset[asyncio.Task[None]]"
    output: Output

    async def wait(self) -> ProgramEnd:
        """Wait for its end and for the rest of its output."""
        await asyncio.wait({self.child.exited})
        await asyncio.wait(self.readers, timeout=DRAIN_S)
        return ProgramEnd(self.child.exited.result(), self.output.stdout.text(), self.output.stderr.text())


@asynccontextmanager
async def running(
    argv: Sequence[str], environment: Mapping[str, str], stdin: bytes | None, output: Output, *, group: bool = True
) -> AsyncIterator[Program]:
    """Start a program; at the end of the block it is ended, with all its children. Raises OSError.

    `stdin=None` inherits ours. `group=False` keeps it in our process group, where it can read the terminal.
    Threads wait for its end and write its input: asyncio's subprocess would wait for every holder of the pipes.
    """
    guard.start()
    process = subprocess.Popen(  # noqa: ASYNC220 - see above
        argv,
        env=environment,
        stdin=None if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0 if group else None,
        bufsize=0,
    )
    child = _watched(process.pid, process.wait, group=group)
    if process.stdin is not None:
        feed = process.stdin
        in_thread(lambda: _feed(feed, stdin or b""), "leyden-stdin")
    streams = ((process.stdout, output.stdout, output.out), (process.stderr, output.stderr, output.err))
    readers = frozenset(asyncio.create_task(_read(stream, tail, sink)) for stream, tail, sink in streams if stream)
    try:
        yield Program(child, readers, output)
    finally:
        await asyncio.shield(_end(child, readers))


async def _end(child: ChildProcess, readers: "frozenset[asyncio.Task[None]]") -> None:
    await child.terminate()
    for task in readers:
        task.cancel()
    await asyncio.wait(readers)


async def _read(stream: IO[bytes], tail: Tail, sink: Sink) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), stream
    )
    try:
        while data := await reader.read(READ_BYTES):
            tail.add(data)
            sink(data)
    finally:
        transport.close()


def _feed(stdin: IO[bytes], data: bytes) -> None:
    """Write the input. A program may close the pipe without reading all of it."""
    with suppress(BrokenPipeError):
        view = memoryview(data)
        while view:
            view = view[stdin.write(view) :]
    with suppress(BrokenPipeError):
        stdin.close()


class AgentProcesses:
    """Runs one Python agent in any number of processes. Raises `ConfigurationError` if it cannot be pickled.

    Processes are forked from a small server that has imported the agent's module and has no threads. Forking this
    process would not be safe, as it has threads.
    """

    def __init__(self, agent: Callable[[Claim], Any]) -> None:
        try:
            pickle.dumps(agent)
        except Exception as error:
            raise ConfigurationError(
                f"mode='process' needs an agent that can be imported by name, not {agent!r}: {error}"
            ) from error
        self._agent = agent
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._processes = multiprocessing.get_context(method)
        self._starting = threading.Lock()
        """`Process.start` polls all children. The exit status can be read once: two readers would lose it."""
        if method == "forkserver":
            module = getattr(agent, "__module__", "__main__")
            self._processes.set_forkserver_preload([__name__, *([module] if module != "__main__" else [])])

    async def run(self, claim: Claim, environment: Mapping[str, str]) -> Outcome:
        """Run the agent to its end; when cancelled, the process is ended with all that it started."""
        ours, theirs = self._processes.Pipe(duplex=False)
        process = self._processes.Process(  # type: ignore[attr-defined]
            target=child_main, args=(self._agent, claim, dict(environment), theirs), name=f"agent-{claim.trace_id}"
        )
        starting = asyncio.ensure_future(self._started(process, theirs))
        try:
            child = await asyncio.shield(starting)
            await _readable(ours)
            outcome = await asyncio.to_thread(_received, ours)
            await asyncio.wait({child.exited}, timeout=GRACE_S)
        finally:
            await asyncio.shield(_terminate(starting))
            ours.close()
        return outcome or _no_outcome(child.exited.result())

    async def _started(self, process: Any, theirs: Connection) -> ChildProcess:
        try:
            await asyncio.to_thread(self._start, process)
        finally:
            theirs.close()
        return _watched(process.pid, lambda: self._exit_code(process))

    def _start(self, process: Any) -> None:
        with self._starting:
            process.start()

    def _exit_code(self, process: Any) -> int:
        wait([process.sentinel])
        with self._starting:
            process.join()
        return int(process.exitcode)


def child_main(agent: Callable[[Claim], Any], claim: Claim, environment: dict[str, str], result: Connection) -> None:
    """In the child: run the agent inside its rollout, send the last spans, then report the outcome."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, name="leyden-parent", daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    init()
    parent = trace.get_current_span(context_of(environment[TRACEPARENT]))
    with enter_claim(claim, parent):
        outcome = call(agent, claim)
    close()
    result.send(outcome)
    result.close()


def _die_with_parent() -> None:
    """End when the runner is killed. The guard does it for agents that let no other thread run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


async def _terminate(starting: "asyncio.Future[ChildProcess]") -> None:
    """End a child that may still be starting."""
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().terminate()


async def _readable(connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())


def _received(connection: Connection) -> Outcome | None:
    try:
        outcome = connection.recv()
    except (EOFError, OSError):
        return None
    return outcome if isinstance(outcome, Outcome) else None


def _no_outcome(exit_code: int) -> Outcome:
    """The outcome of a process that ended without reporting one."""
    if exit_code == -signal.SIGKILL:
        return infrastructure_failed("the agent's process was killed from outside, perhaps because memory ran out")
    return process_failed(
        f"the agent's process ended with exit code {exit_code} and no result", f"exit_code_{exit_code}"
    )


def _watched(pid: int, wait_for_exit: Callable[[], int], *, group: bool = True) -> ChildProcess:
    guard.watch(-pid if group else pid)
    return ChildProcess(pid, group, in_thread(wait_for_exit, "leyden-wait"))


def in_thread(work: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """The result of `work` in a daemon thread. Cancelling the future does not stop the thread."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - passed to the future
            result.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(result)
