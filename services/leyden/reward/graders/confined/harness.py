"""Runs an answer's Python code against test cases, each in its own process. A script that does not import Leyden.

Reads one JSON job from standard input and writes one JSON list of results to standard output. The harness never runs
the answer's code itself. A case passes if its process reports so at the end; exiting early, with any status, fails.
`confinement` restricts what a case may do; processes that it leaves behind are killed.
"""

import json
import os
import secrets
import select
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

# The script is run by its path, so the modules in the same folder are the only ones of ours it can import.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from confinement import confine  # type: ignore[import-not-found]
from reaper import become_reaper, die_with_parent, end_all  # type: ignore[import-not-found]

Job = dict[str, Any]
UNCONFINED = b"the limits cannot be set: "
"""Longer than a token, so that longer output never counts as one."""


def main() -> None:
    """Run all cases in order, until the job's time limit."""
    job: Job = json.load(sys.stdin)
    die_with_parent()
    become_reaper()
    end = time.monotonic() + job["time_s"]
    results = [run_case(job, case, min(end, time.monotonic() + job["case_s"] * 2)) for case in job["cases"]]
    json.dump(results, sys.stdout)


def run_case(job: Job, case: dict[str, str], end: float) -> bool:
    """Whether `case` passed before `end`."""
    if time.monotonic() >= end:
        return False
    token = secrets.token_bytes(16)
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pid = os.fork()
        if pid == 0:
            in_child(job, case, folder, writing, token)
        os.close(writing)
        last_words = said(reading, end)
        os.close(reading)
        end_all(pid)
    if last_words.startswith(UNCONFINED):
        raise RuntimeError(last_words.decode(errors="replace"))
    return last_words == token


def said(reading: int, end: float) -> bytes:
    """What the child wrote at its end; empty if it did not finish in time."""
    found = b""
    while (left := end - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        if not (data := os.read(reading, 64)):
            return found
        found = (found + data)[:64]
        if len(found) >= 16:
            return found
    return b""


def in_child(job: Job, case: dict[str, str], folder: str, writing: int, token: bytes) -> NoReturn:
    """Run the answer and then the case, restricted; writes the token at the end."""
    status = 1
    try:
        die_with_parent()
        os.setsid()
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder)
        tempfile.tempdir = folder
        keep_only(writing)
        try:
            confine(job["case_s"], job["case_memory_mb"], folder)
        except (OSError, ValueError) as error:  # ours, not the answer's: no test may fail for it
            os.write(writing, UNCONFINED + str(error).encode()[:40])
            raise
        names: dict[str, Any] = {"__name__": "answer"}
        for part, text in (("answer", job["code"]), ("tests", case["source"]), ("call", case["call"])):
            exec(compile(text, f"<{part}>", "exec"), names)  # noqa: S102 - running the answer is what this is for
        os.write(writing, token)
        status = 0
    finally:
        os._exit(status)


def keep_only(writing: int) -> None:
    """Close all files except `writing`; standard streams are redirected to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, writing)
    os.closerange(writing + 1, 256)


if __name__ == "__main__":
    main()
