"""Where downloads and conversions are kept between runs. Holds nothing that a run writes (see the data folder)."""

import os
from pathlib import Path

from leyden.stack.errors import StackError


def cache_root() -> Path:
    """The cache folder, made if missing: `LEYDEN_CACHE`, else `$XDG_CACHE_HOME/leyden`, else `~/.cache/leyden`.

    Raises StackError when it cannot be made.
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
            f"The cache folder {root} cannot be made ({error.strerror}). Set LEYDEN_CACHE to one that you can write to."
        ) from error
    return root.resolve()
