"""Stacks that outlive the shell, named by their data folders: `up_detached`, `down`, `status`, `reset`.

`python -m leyden.stack.daemon CONFIG.json` is the supervisor process that `up_detached` starts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from leyden.client.local_stack import is_locked
from leyden.stack import plan, sweep
from leyden.stack.config import StackConfig
from leyden.stack.errors import AlreadyRunningError, StackError
from leyden.stack.locks import lock_within
from leyden.stack.program import as_typed
from leyden.stack.stack import OnProgress, Stack
from leyden.stack.state import DataFolder, StackState

_PAUSE_S = 0.2
_STOP_TIMEOUT_S = 60.0


def up_detached(config: StackConfig, on_progress: OnProgress = lambda line: None) -> StackState:
    """Start a stack under its own supervisor process and wait until it is up. Raises StackError.

    On KeyboardInterrupt it stops the stack again.
    """
    chosen = config.absolute()
    folder = DataFolder(chosen.data_dir)
    if is_locked(folder.lock):
        raise AlreadyRunningError(f"A stack already runs on {folder.root}. Stop it first with `{as_typed()} down`.")
    folder.logs.mkdir(parents=True, exist_ok=True)
    folder.write_state(StackState())
    folder.config.write_text(chosen.model_dump_json(indent=2))
    supervisor = _spawn(chosen, folder)
    try:
        return _wait_up(folder, supervisor, on_progress)
    except KeyboardInterrupt:
        supervisor.terminate()  # it may not have the lock yet, by which `down` finds it
        on_progress("stopping the stack; its services finish what they write")
        with contextlib.suppress(subprocess.TimeoutExpired):  # then `down` kills it
            supervisor.wait(_STOP_TIMEOUT_S)
        down(folder.root)
        raise


def down(data_dir: Path) -> bool:
    """Stop the stack that runs on `data_dir`. Returns False if none was running."""
    folder = DataFolder(data_dir)
    was_running = is_locked(folder.lock)
    if was_running:
        lock = _signal_until_free(folder, signal.SIGTERM)
        if lock is None:
            lock = _signal_until_free(folder, signal.SIGKILL)
        if lock is None:
            raise StackError(f"The stack on {folder.root} did not stop. See the logs in {folder.logs}.")
        os.close(lock)
    sweep.sweep(folder.stack_id)
    return was_running


def status(data_dir: Path) -> StackState:
    """The state of the stack on `data_dir`; phase `down` if none runs."""
    return DataFolder(data_dir).read_state()


def reset(data_dir: Path) -> None:
    """Delete the data of an earlier stack. Raises AlreadyRunningError while one runs on `data_dir`.

    Raises StackError for a folder with files that was not made by a stack. Caches are elsewhere and stay.
    """
    folder = DataFolder(data_dir)
    if is_locked(folder.lock):
        raise AlreadyRunningError(f"A stack already runs on {folder.root}. Stop it first with `{as_typed()} down`.")
    if folder.root.exists() and any(folder.root.iterdir()) and not folder.is_ours():
        raise StackError(
            f"{folder.root} has files and was not made by a stack, so it is not deleted. Choose another --data-dir."
        )
    shutil.rmtree(folder.root, ignore_errors=True)
    folder.claim()


def _spawn(config: StackConfig, folder: DataFolder) -> subprocess.Popen[bytes]:
    with (folder.logs / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "leyden.stack.daemon", str(folder.config)],
            env=os.environ | plan.python_env(config),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Reap the supervisor when it ends before this process.
    threading.Thread(target=supervisor.wait, name="reap-supervisor", daemon=True).start()
    return supervisor


def _wait_up(folder: DataFolder, supervisor: subprocess.Popen[bytes], on_progress: OnProgress) -> StackState:
    told = ""
    while True:
        ended = supervisor.poll() is not None
        state = folder.read_state()
        if state.doing and state.doing != told:
            told = state.doing
            on_progress(told)
        if state.phase == "up":
            return state
        if ended:
            raise StackError(state.error or f"The supervisor ended. See {folder.logs / 'supervisor.log'}.")
        time.sleep(_PAUSE_S)


def _signal_until_free(folder: DataFolder, number: signal.Signals) -> int | None:
    """Signal the supervisor, once the state has its pid, and wait for its lock; None if it is not free in time."""
    signalled = 0
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while (lock := lock_within(folder.lock, _PAUSE_S)) is None and time.monotonic() < deadline:
        pid = folder.read_state().supervisor_pid
        if pid != signalled:
            signalled = pid
            with contextlib.suppress(ProcessLookupError):  # it was killed; its watchdog cleans up
                os.kill(pid, number)
    return lock


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(0)


def main(config_file: Path) -> None:
    """Run the stack until SIGTERM or SIGINT, or until a process ended too often (exit status 1)."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    config = StackConfig.model_validate_json(config_file.read_text())
    try:
        with Stack(config) as stack:
            stack.wait_failed()
            stack.check()
    except StackError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
