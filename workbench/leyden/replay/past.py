"""The replays of a stack, from the reports in its data folder."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPORT = "report.json"


@dataclass(frozen=True)
class PastReplay:
    """One replay. A failed one has no report."""

    name: str
    folder: Path
    ended: datetime | None
    result: str
    """`identical` or `different` from the live run, or `failed or unfinished`."""
    events: int | None
    """Number of events of its transitions."""
    candidate: str | None
    """The last version that it trained."""


def replays_of(data_dir: Path) -> Path:
    """The folder of a stack's replays."""
    return data_dir.resolve() / "replays"


def past_replays(data_dir: Path) -> list[PastReplay]:
    """All of them, oldest first; failed ones, which may be made again, at the end."""
    folders = sorted(path for path in replays_of(data_dir).glob("*") if path.is_dir())
    found = [_read(folder) for folder in folders]
    return sorted(found, key=lambda one: (one.ended is None, one.ended or datetime.max.replace(tzinfo=UTC), one.name))


def _read(folder: Path) -> PastReplay:
    path = folder / REPORT
    if not path.exists():
        return PastReplay(folder.name, folder, None, "failed or unfinished", None, None)
    report = json.loads(path.read_text())
    compared, training = report["comparison"], report.get("training")
    same = compared["identical"] and (training is None or training["identical"])
    versions = report.get("versions") or []
    candidate = f"{versions[-1]['policy']}@{versions[-1]['version']}" if versions else None
    ended = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    counted = sum(compared[name] for name in ("same", "different", "only_replayed"))
    return PastReplay(folder.name, folder, ended, "identical" if same else "different", counted, candidate)
