"""Where downloads and conversions are kept between runs. Holds nothing that a run writes (see the data folder)."""

import os
from pathlib import Path


def cache_root() -> Path:
    """The cache folder, made if missing: `LEYDEN_CACHE`, else `$XDG_CACHE_HOME/leyden`, else `~/.cache/leyden`."""
    chosen = os.environ.get("LEYDEN_CACHE")
    if chosen:
        root = Path(chosen).expanduser()
    else:
        xdg = os.environ.get("XDG_CACHE_HOME")
        root = (Path(xdg) if xdg else Path.home() / ".cache") / "leyden"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()
