"""Runs an agent that is a program of its own: its output passes through, its end becomes the rollout's.

Whatever the program started is ended with it: it runs in a process group of its own. With us it ends as well.
"""

import asyncio
import json
import math
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from leyden.client.errors import ConfigurationError
from leyden.client.guard import guard
from leyden.client.looping import call_soon
from leyden.client.outcomes import LAST_WORDS, Outcome, ended_badly, given_up

MAX_OUTPUT = 64 * 1024
"""Bytes of each stream's end that are kept."""
READ = 64 * 1024
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
CLOSE_S = 1.0
"""After the program's end, what a child of its that holds the streams open is waited for."""

_RAISED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning))(?::|$)")
"""The last line of a traceback."""

Sink = Callable[[bytes], None]


@dataclass(frozen=True)
class Command:
    """How to run an agent's program. `reward_from` names the key of the reward in the JSON of its last line."""

    argv: Sequence[str]
    reward_from: str | None = None

    @classmethod
    def parse(cls, line: str, reward_from: str | None = None) -> "Command":
        """As a shell would split it. Raises `ConfigurationError` for none."""
        argv = shlex.split(line)
        if not argv:
            raise ConfigurationError("the command is empty")
        return cls(tuple(argv), reward_from)

    @property
    def __name__(self) -> str:
        """What the agent is called: the script, else the program."""
        words = [os.path.basename(word) for word in self.argv]  # noqa: PTH119 - a name, not a path
        named = next((word for word in words[1:] if not word.startswith("-")), words[0])
        return named.rsplit(".", 1)[0] if named.endswith((".py", ".js", ".ts", ".sh")) else words[0]


@dataclass(frozen=True)
class ProgramEnd:
    """Exit code (negative: the signal that ended it) and the ends of what it wrote."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def exit_code(self) -> int:
        """As a shell has it: 128 + n for signal n."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


class Program:
    """One run. `group` False leaves it in our process group, where it can read the terminal."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes | None, group: bool = True):
        self._argv = argv
        self._environment = environment
        self._stdin = stdin
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self.stopped_by: signal.Signals | None = None
        """A signal that was passed on to it."""
        self._tails = (Tail(), Tail())

    async def run(self, out: Sink = lambda data: None, err: Sink = lambda data: None) -> ProgramEnd:
        """To its end; when cancelled, it is ended with all its children. Raises OSError when it cannot be started.

        Threads wait for the end and write the input: asyncio's own subprocess would wait for whoever holds the pipes.
        """
        process = self._start(asyncio.get_running_loop())
        streams = ((process.stdout, self._tails[0], out), (process.stderr, self._tails[1], err))
        readers = [asyncio.create_task(_pass_on(stream, tail, sink)) for stream, tail, sink in streams if stream]
        try:
            await self._exited.wait()
            await asyncio.wait(readers, timeout=CLOSE_S)
        finally:
            await self._end()
            guard.forget(self._number(process))
            for task in readers:
                task.cancel()
            await asyncio.wait(readers)
        return ProgramEnd(process.returncode or 0, self._tails[0].text(), self._tails[1].text())

    def _start(self, loop: asyncio.AbstractEventLoop) -> "subprocess.Popen[bytes]":
        guard.start()
        self._process = process = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=None if self._stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0 if self._group else None,
            bufsize=0,
        )
        guard.watch(self._number(process))

        def wait() -> None:
            process.wait()
            call_soon(loop, self._exited.set)

        _in_thread(wait)
        _in_thread(lambda: _feed(process.stdin, self._stdin or b""))
        return process

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to the program and its children."""
        self.stopped_by = number
        self._send(number)

    def last_words(self) -> str:
        """What it wrote last: of stderr, else of stdout."""
        return (self._tails[1].text().strip() or self._tails[0].text().strip())[-LAST_WORDS:]

    async def _end(self) -> None:
        """End what is left: the program if it runs, and its children either way."""
        if not self._exited.is_set():
            self._send(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), GRACE_S)
        if self._group or not self._exited.is_set():
            self._send(signal.SIGKILL)
        await self._exited.wait()

    def _number(self, process: "subprocess.Popen[bytes]") -> int:
        """As kill(2) has it: a group's number is negative."""
        return -process.pid if self._group else process.pid

    def _send(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            if self._group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)


class Tail:
    """The last `MAX_OUTPUT` bytes of a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        """More of it."""
        self._bytes += data
        if len(self._bytes) > 2 * MAX_OUTPUT:
            del self._bytes[:-MAX_OUTPUT]

    def text(self) -> str:
        """As text; bytes that are none are marked."""
        return self._bytes[-MAX_OUTPUT:].decode(errors="replace")


def outcome_of(end: ProgramEnd, reward_from: str | None = None, stopped_by: signal.Signals | None = None) -> Outcome:
    """Exit code 0: succeeded, with the last line's JSON object as output, else the text. Anything else: failed.

    Killed from outside, or ended by a signal that we passed on: nothing that the agent did.
    """
    words = end.stderr.strip()[-LAST_WORDS:] or end.stdout.strip()[-LAST_WORDS:]
    if end.returncode != 0:
        if stopped_by is not None:
            return given_up(f"stopped by {stopped_by.name}")
        if end.returncode == -signal.SIGKILL:
            return given_up(f"the program was killed from outside, perhaps for its memory\n{words}")
        cause = f"exit code {end.returncode}" if end.returncode > 0 else f"signal {-end.returncode}"
        raised = _RAISED.match(end.stderr.rstrip().rpartition("\n")[2])
        error_type = raised[1] if raised else cause.replace(" ", "_")
        return ended_badly(f"the program ended with {cause}\n{words}", error_type, end.stderr.strip())
    said = last_line_json(end.stdout)
    output: Any = said if isinstance(said, dict) else end.stdout.strip() or None
    return Outcome(reward=reward_in(said, reward_from) if reward_from else None, output=output)


def last_line_json(text: str) -> Any:
    """The value of the last line, None when it is no JSON."""
    line = text.rstrip().rpartition("\n")[2]
    try:
        return json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def reward_in(said: Any, path: str) -> float | None:
    """The finite number at `path` (keys joined by dots; `.` is the value itself), if there is one."""
    for key in path.split(".") if path != "." else ():
        said = said.get(key) if isinstance(said, dict) else None
    return float(said) if isinstance(said, int | float) and math.isfinite(said) else None


async def _pass_on(stream: IO[bytes], tail: Tail, sink: Sink) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), stream
    )
    try:
        while data := await reader.read(READ):
            tail.add(data)
            sink(data)
    finally:
        transport.close()


def _feed(stdin: IO[bytes] | None, data: bytes) -> None:
    """A program need not read its input: that it closed the pipe is none of our business."""
    if stdin is None:
        return
    with suppress(BrokenPipeError):
        view = memoryview(data)
        while view:
            view = view[stdin.write(view) :]
    with suppress(BrokenPipeError):
        stdin.close()


def _in_thread(work: Callable[[], Any]) -> None:
    threading.Thread(target=work, name="leyden-program", daemon=True).start()
