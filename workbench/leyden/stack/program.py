"""How the user of this process types the `leyden` command, for hints in messages."""

import shutil
import sys
from pathlib import Path

__all__ = ["as_typed"]

_CLONE = Path(__file__).parents[3]


def as_typed(clone: Path = _CLONE, environment: Path = Path(sys.prefix)) -> str:
    """`leyden` if PATH leads to that of `environment`, else `./leyden` in a clone, else a full path."""
    found = shutil.which("leyden")
    own = environment / "bin" / "leyden"
    if found is not None and Path(found).resolve() == own.resolve():
        return "leyden"
    script = clone / "leyden"
    if not script.is_file() or environment.resolve().parent != clone.resolve():
        return str(own)
    return "./leyden" if Path.cwd() == clone.resolve() else str(script)
