"""The service's side of one worker process: starts it, sends views, reads answers within time limits, kills it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.sandbox.limits import hide_memory
from leyden.reward.sandbox.spec import CallSpec
from leyden.reward.sandbox.wire import LENGTH_BYTES, MAX_ANSWER_BYTES, framed, read_answer, views_frame
from leyden.reward.sandbox.worker import READY, READY_ASYNC

START_PATIENCE_S = 120.0
"""Time limit for importing a function."""
SPARE_S = 1.0
"""Extra time after `timeout_s` in which the worker can cancel an async function itself, and so survive."""


END_PATIENCE_S = 10.0
"""Time limit for the keeper; then it is killed, and the kernel kills the process of the function."""
PASSED_ON = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""Environment variables that every function gets, and those that begin with `LC_`."""


def environment(spec: CallSpec, ours: Mapping[str, str]) -> dict[str, str]:
    """What a worker gets of the service's environment `ours`: nothing that holds keys or addresses unless named."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - what "" in sys.path means
    names = {*PASSED_ON, *spec.environment, *(name for name in ours if name.startswith("LC_"))}
    told = {name: ours[name] for name in sorted(names) if name in ours}
    return {"PYTHONHASHSEED": "0"} | told | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


class WorkerProcess:
    """A running worker. Not for concurrent use; must not be used again after an exception."""

    def __init__(self, process: Process, spec: CallSpec) -> None:
        self._process = process
        self._spec = spec
        self.one_by_one = True
        """Whether it handles views one after another, so that the first one without an answer is the current one."""

    @classmethod
    async def start(cls, spec: CallSpec) -> "WorkerProcess":
        """Start a worker and load its function. Raises `RuleFailed` if that fails."""
        hide_memory()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "leyden.reward.sandbox.worker", str(os.getpid())),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
            env=environment(spec, os.environ),
        )
        worker = cls(process, spec)
        try:
            worker._put(framed(spec.encode()))
            said = await worker._frame(START_PATIENCE_S)
        except BaseException:
            await worker.end()
            raise
        if said not in (READY, READY_ASYNC):
            await worker.end()
            raise RuleFailed(FailureKind.EXCEPTION, f"cannot be loaded: {said.decode(errors='replace')}")
        worker.one_by_one = said == READY and not spec.batched
        return worker

    async def answers(self, encoded: Sequence[bytes]) -> AsyncGenerator[tuple[int, Answer], None]:
        """Yield (index, answer) for the encoded views as they arrive. Raises `RuleFailed` if the worker fails."""
        self._put(views_frame(encoded))
        missing = set(range(len(encoded)))
        while missing:
            body = await self._frame(self._spec.timeout_s + SPARE_S)
            try:
                index, answer = read_answer(body)
                missing.remove(index)
            except (ValueError, KeyError, TypeError) as error:
                raise RuleFailed(FailureKind.MALFORMED, f"not an answer: {error}") from error
            yield index, answer

    async def end(self) -> None:
        """Have its keeper kill all processes that the function started, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_PATIENCE_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def _put(self, data: bytes) -> None:
        """Write without waiting for the worker to read: it may be writing itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    async def _frame(self, timeout_s: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                size = int.from_bytes(await stdout.readexactly(LENGTH_BYTES))
                if size > MAX_ANSWER_BYTES:
                    raise RuleFailed(FailureKind.MALFORMED, f"an answer of {size} bytes")
                return await stdout.readexactly(size)
        except TimeoutError as error:
            raise RuleFailed(FailureKind.TIMEOUT, f"no answer within {self._spec.timeout_s:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._died() from error

    async def _died(self) -> RuleFailed:
        status = await self._process.wait()
        if status == -signal.SIGXCPU:
            return RuleFailed(FailureKind.TIMEOUT, "used up its processor time")
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return RuleFailed(FailureKind.LOST, f"its process was {how}" if status < 0 else f"its process {how}")
