"""Progress: rewritten in place on a terminal, a few lines elsewhere."""

import io

from rich.console import Console

from leyden.stack.progress import Progress


def told(terminal: bool) -> str:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=terminal, width=80))
    for line in ("waiting for kafka (1 s)", "waiting for kafka (2 s)", "kafka is ready"):
        progress(line)
    progress.close()
    return out.getvalue()


def test_a_terminal_shows_the_newest_count_in_one_line() -> None:
    assert (
        told(terminal=True)
        == "\r\x1b[2K· waiting for kafka (1 s)\r\x1b[2K· waiting for kafka (2 s)\n\r\x1b[2K· kafka is ready\n"
    )


def test_elsewhere_the_same_line_is_told_once() -> None:
    assert told(terminal=False) == "· waiting for kafka (1 s)\n· kafka is ready\n"
