"""The guard: ends what a runner that was killed has left running. A program of its own, of the standard library alone.

It is told on standard input, a line each, `watch N` and `forget N`: a process, or with a minus sign a process group.
When the input ends, or the process that the first argument names, all that is still watched is killed.
"""

import os
import select
import signal
import sys

READ = 64 * 1024


def main(parent: int) -> None:
    """Wait for the parent's end, then kill."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a runner that drains still needs it
    for each in _watched_at_the_end([0, *_end_of(parent)]):
        _kill(each)


def _end_of(process: int) -> list[int]:
    """What is readable when the process has ended; the input's end alone would wait for all who hold the pipe."""
    try:
        return [os.pidfd_open(process)]
    except (AttributeError, OSError):
        return []


def _watched_at_the_end(sources: list[int]) -> set[int]:
    watched: set[int] = set()
    rest = b""
    while 0 in select.select(sources, [], [])[0]:
        told = os.read(0, READ)
        if not told:
            break
        *lines, rest = (rest + told).split(b"\n")
        for line in lines:
            word, number = line.split()
            (watched.add if word == b"watch" else watched.discard)(int(number))
    return watched


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        if number < 0:  # it has not begun its own group yet
            _kill(-number)
    except PermissionError:
        return  # it has become somebody else


if __name__ == "__main__":
    main(int(sys.argv[1]))
