"""The folder for downloads and converted models, kept between runs. What a run writes is in its data folder."""

import os
from pathlib import Path

from leyden.stack.errors import StackError


def cache_root() -> Path:
    """The cache folder: `LEYDEN_CACHE`, else `$XDG_CACHE_HOME/leyden`, else `~/.cache/leyden`. Created if missing.

    Raises StackError if it cannot be created.
    """
    chosen = os.environ.get("LEYDEN_CACHE")
    if chosen:
        root = Path(chosen).expanduser()
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        root = (Path(xdg) if xdg else Path.home() / ".cache") / "leyden"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"The cache folder {root} cannot be created ({error.strerror}). Set LEYDEN_CACHE to a writable folder."
        ) from error
    return root.resolve()
