"""Where the repository and its source roots are; imports nothing but the standard library, so that any program may."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = (ROOT / "services", ROOT / "shared", ROOT / "workbench")


def python_path(*more: Path) -> str:
    """`PYTHONPATH` for a process that imports this checkout's code, and what else is named."""
    return os.pathsep.join(str(folder) for folder in (*SOURCE_ROOTS, *more))
