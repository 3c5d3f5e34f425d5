"""`python -m leyden.events.export` writes the JSON Schema of every event to `schemas/events/`.

The same models always give the same bytes. All modes fail if the models cannot read events of the released baseline
(`schemas/baseline/`). `--check` writes nothing and fails if a file is outdated; `--release` also writes the baseline.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.events.base import Event
from leyden.events.codec import EVENT_TYPES
from leyden.events.compatibility import breaks

log = logging.getLogger(__name__)
SUFFIX = ".schema.json"


def file_name(kind: type[Event]) -> str:
    """The file name of an event type's schema: `<type>.v<version>.schema.json`."""
    fields = kind.model_fields
    return f"{fields['type'].default}.v{fields['schema_version'].default}{SUFFIX}"


def schema_of(kind: type[Event]) -> dict[str, Any]:
    """The JSON Schema of the events that a reader accepts."""
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": file_name(kind), **schema}


def exported() -> dict[str, str]:
    """File name → content, for every event type."""
    return {
        file_name(kind): json.dumps(schema_of(kind), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for kind in EVENT_TYPES.values()
    }


def stale(folder: Path) -> list[str]:
    """Names of files in `folder` that are missing, superfluous or outdated."""
    wanted = exported()
    found = {file.name: file.read_text() for file in folder.glob(f"*{SUFFIX}")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def incompatible(baseline: Path) -> list[str]:
    """One message for each way in which the current models cannot read events of the released schemas."""
    current: Mapping[str, Any] = {file_name(kind): schema_of(kind) for kind in EVENT_TYPES.values()}
    problems: list[str] = []
    for file in sorted(baseline.glob(f"*{SUFFIX}")):
        if file.name not in current:
            problems.append(f"{file.name}: the event no longer exists")
            continue
        problems += [f"{file.name}: {problem}" for problem in breaks(json.loads(file.read_text()), current[file.name])]
    return problems


def write(folder: Path) -> None:
    """Write the current schemas to `folder` and delete all others there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = exported()
    for file in folder.glob(f"*{SUFFIX}"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


def main() -> None:
    """Write, check or release the JSON Schemas of events."""
    parser = argparse.ArgumentParser(prog="python -m leyden.events.export", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a schema file is outdated")
    parser.add_argument("--release", action="store_true", help="also write the schemas as the compatibility baseline")
    parser.add_argument("--schemas", type=Path, default=Path("schemas"), help="folder with events/ and baseline/")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if problems := incompatible(args.schemas / "baseline"):
        raise SystemExit("these changes would make old events unreadable:\n" + "\n".join(problems))
    if args.check:
        if names := stale(args.schemas / "events"):
            raise SystemExit(f"outdated schemas: {', '.join(names)}; run `make schemas`")
        return
    write(args.schemas / "events")
    if args.release:
        write(args.schemas / "baseline")
    log.info("wrote %d schemas", len(EVENT_TYPES))


if __name__ == "__main__":
    main()
