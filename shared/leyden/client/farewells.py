"""The ends of an agent's own rollouts, told to the gateway behind the agent's back when that takes long.

An end waits for its spans and for the gateway, which may be away. The agent waits for it only as long as it is quick:
it waits `WAIT_S` at most, and not at all while the gateway fails or an earlier end is stuck.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

logger = logging.getLogger("leyden.client")

WAIT_S = 2.0
"""What an agent waits for the end of its rollout to be acknowledged."""
THREADS = 4
CAPACITY = 1024
"""Ends that wait at a time; then the newest is not told, and the gateway gives its rollout up by itself."""

Job = Callable[[], None]


class Farewells:
    """A bounded queue and a few daemon threads, which start when there is work."""

    def __init__(self, capacity: int = CAPACITY, threads: int = THREADS) -> None:
        self._capacity = capacity
        self._most = threads
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Job, Future[None]]] = deque()
        self._since: dict[Future[None], float] = {}
        self._threads = 0
        self._busy = 0
        self._closed = False

    def submit(self, job: Job) -> "Future[None]":
        """Done when the job is, or was not taken. The job must not raise."""
        done: Future[None] = Future()
        with self._changed:
            if self._closed or len(self._jobs) >= self._capacity:
                logger.error("the end of a rollout is not told: %d others wait for the gateway", len(self._jobs))
                done.set_result(None)
                return done
            self._jobs.append((job, done))
            self._since[done] = time.monotonic()
            if self._threads < min(self._most, self._busy + len(self._jobs)):
                self._threads += 1
                threading.Thread(target=self._work, name="leyden-farewells", daemon=True).start()
            self._changed.notify()
        return done

    def pending(self) -> int:
        """How many are not told yet."""
        with self._changed:
            return self._busy + len(self._jobs)

    def is_stuck(self) -> bool:
        """Whether one has been waiting for longer than an agent would."""
        with self._changed:
            oldest = min(self._since.values(), default=None)
        return oldest is not None and time.monotonic() - oldest >= WAIT_S

    def drain(self, timeout_s: float) -> int:
        """Wait for all; how many were left untold when time ran out."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._jobs, max(0.0, deadline - time.monotonic()))
            return self._busy + len(self._jobs)

    def close(self) -> None:
        """Take no more, and let the threads go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to tell."""
        self._reset()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job, done = self._jobs.popleft()
                self._busy += 1
            try:
                job()
            except Exception:
                logger.exception("the end of a rollout was lost to an error of the client library")
            finally:
                with self._changed:
                    self._busy -= 1
                    self._since.pop(done, None)
                    self._changed.notify_all()
                done.set_result(None)
