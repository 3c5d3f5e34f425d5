"""The file of other upstreams, read once at the start. Errors name the place in the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from leyden.gateway.core.upstreams import Timeouts, Upstream, UpstreamEntry, Upstreams, UpstreamsFile
from leyden.settings import RunFileError


def load_upstreams(path: Path | None, environment: Mapping[str, str], defaults: Timeouts) -> Upstreams:
    """The upstreams of a YAML or JSON file, with their keys; none without a file.

    Raises `RunFileError` for an unreadable file, an invalid entry, or a key that is not in the environment.
    """
    if path is None:
        return Upstreams()
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFileError(f"LEYDEN_GATEWAY_UPSTREAMS: {path} cannot be read as YAML: {error}") from error
    try:
        entries = UpstreamsFile.model_validate(document or {}).upstreams
    except ValidationError as error:
        raise RunFileError(f"LEYDEN_GATEWAY_UPSTREAMS: {path}: {_told(error, document)}") from error
    return Upstreams([_upstream(path, entry, environment, defaults) for entry in entries])


def _upstream(path: Path, entry: UpstreamEntry, environment: Mapping[str, str], defaults: Timeouts) -> Upstream:
    key = environment.get(entry.api_key_env, "").strip() if entry.api_key_env else None
    if key == "":
        raise RunFileError(
            f"LEYDEN_GATEWAY_UPSTREAMS: {path}: upstream {entry.name!r}: api_key_env names {entry.api_key_env}, "
            "which is not set"
        )
    own = entry.timeouts
    timeouts = Timeouts(
        own.connect_s or defaults.connect_s, own.first_byte_s or defaults.first_byte_s, own.total_s or defaults.total_s
    )
    return Upstream(entry, timeouts, key)


def _told(error: ValidationError, document: Any) -> str:
    """One line per error, with the entry's name if it has one. Values of the file are not repeated."""
    faults = []
    for fault in error.errors(include_input=False, include_url=False):
        where = list(fault["loc"])
        if len(where) > 1 and where[0] == "upstreams" and isinstance(where[1], int):
            where[1] = _name(document, where[1])
        faults.append(f"{'.'.join(map(str, where)) or 'the file'}: {fault['msg']}")
    return "; ".join(faults)


def _name(document: Any, index: int) -> str:
    entry = document["upstreams"][index]
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"{index} ({name})" if isinstance(name, str) else str(index)
