"""Runs programs in threads of which one moves at a time, line by line, in an order that a test chooses.

So a test can stop a program behind any line of the traced modules, let others go on, and continue it: what SIGSTOP and
SIGCONT do to a process, at every place, and the same again for the same order.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, ModuleType
from typing import Any


class _Program:
    def __init__(self, run: Callable[[], None], files: frozenset[str]) -> None:
        self._run = run
        self._files = files
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._free = False
        self.ended = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        self._there.acquire()

    def step(self) -> None:
        """Let it run to its next line."""
        if not self.ended:
            self._go.release()
            self._there.acquire()

    def finish(self) -> None:
        """Let it run to its end."""
        self._free = True
        while not self.ended:
            self.step()
        self._thread.join()

    def _main(self) -> None:
        self._pause()
        sys.settrace(self._trace)
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            sys.settrace(None)
            self.ended = True
            self._there.release()

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line" and not self._free:
            self._pause()
        return self._trace

    def _pause(self) -> None:
        self._there.release()
        self._go.acquire()


def interleave(
    programs: Sequence[Callable[[], None]], modules: Iterable[ModuleType], order: Iterable[tuple[int, int]]
) -> list[BaseException | None]:
    """Run `programs`; each (program, lines) of `order` lets one run for that many lines of `modules`.

    After `order` they run to their ends one after another. Returns what each raised.
    """
    files = frozenset(str(module.__file__) for module in modules)
    running = [_Program(run, files) for run in programs]
    for who, lines in order:
        for _ in range(lines):
            running[who].step()
    for one in running:
        one.finish()
    return [one.error for one in running]
