"""The run file of a training: what the user chose in one of their own, and what the command decides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from leyden.settings import RUN_FILE_SECTIONS
from leyden.stack.errors import StackError

OPERATIONAL = {"max_steps", "keep_checkpoints", "gradient_checkpointing"}
"""Fields of the trainer's section that may change in the middle of a training."""
RunFile = dict[str, Any]


def read_run_file(path: Path) -> RunFile:
    """The run file's sections. Raises StackError if it has others or is not YAML; the services check the fields."""
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise StackError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(document, dict) or (unknown := set(document) - RUN_FILE_SECTIONS):
        found = sorted(map(str, unknown)) if isinstance(document, dict) else type(document).__name__
        raise StackError(f"{path}: expected the sections {', '.join(sorted(RUN_FILE_SECTIONS))}; found {found}.")
    return {section: dict(content or {}) for section, content in document.items()}


def made_run_file(base: RunFile, *, policy: str, reward: str | None, trainer: Mapping[str, Any]) -> RunFile:
    """`base` with the reward function instead of its own, and with these fields of the trainer's section."""
    sections: RunFile = {section: dict(content) for section, content in base.items()}
    if reward is not None:
        sections.setdefault("reward", {})["functions"] = [{"entry": reward, "name": "outcome"}]
    sections.setdefault("credit", {}).setdefault("policies", [policy])
    sections["trainer"] = {"policy": policy} | sections.get("trainer", {}) | dict(trainer)
    sections.setdefault("policy", {}).setdefault("name", policy)
    return sections


def write_run_file(path: Path, sections: RunFile) -> None:
    """Write it. Raises StackError if a training has started with the one that is there, and it says something else."""
    if path.exists() and _mark(path).exists():
        changed = differences(read_run_file(path), sections)
        if changed:
            raise StackError(
                f"{path.parent.parent} has a training with other settings: {'; '.join(changed)}. Go on with the same "
                "settings, or choose another --data-dir for a new training."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(sections, sort_keys=False))


def mark_started(path: Path) -> None:
    """Note that a training has started with this run file."""
    _mark(path).touch()


def _mark(path: Path) -> Path:
    return path.with_suffix(".started")


def differences(old: RunFile, new: RunFile) -> list[str]:
    """`section.field: old, now new` for each field that may not change in the middle of a training."""
    fields = sorted({(section, field) for one in (old, new) for section in one for field in one[section]})
    found = []
    for section, field in fields:
        before, now = old.get(section, {}).get(field), new.get(section, {}).get(field)
        if before != now and not (section == "trainer" and field in OPERATIONAL):
            found.append(f"{section}.{field} was {before}, now {now}")
    return found
