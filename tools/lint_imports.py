"""Runs import-linter over the source roots of `leyden`.

import-linter looks a package up by its spec, which knows only the root with the `__init__.py` (shared/). Importing
`leyden` first and handing the spec the package's full path shows it services/ and workbench/ too.
"""

import sys

from importlinter.cli import lint_imports_command

import leyden

if __name__ == "__main__":
    spec = leyden.__spec__
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("leyden is not installed as a package: make setup")
    spec.submodule_search_locations[:] = list(leyden.__path__)
    lint_imports_command()
