"""Inspects a folder of weights by the headers of its files; loads no tensor."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format."""

TIED = frozenset({"lm_head.weight"})
"""If input and output embeddings are tied, a checkpoint may or may not contain these tensors."""


class UnusableWeightsError(Exception):
    """This engine cannot serve the folder, and a retry cannot succeed. The live version is unchanged."""


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """A folder with a full model or, if `adapter`, with a PEFT adapter."""

    path: Path
    adapter: bool


def inspect_folder(path: Path) -> WeightsFolder:
    """Inspect `path`. Raises UnusableWeightsError unless it holds a model or adapter in complete safetensors files."""
    if not path.is_dir():
        raise UnusableWeightsError(f"{path} is not a folder, or the engine cannot read it")
    tensor_shapes(path)
    if (path / "adapter_config.json").is_file():
        if not (path / "adapter_model.safetensors").is_file():
            raise UnusableWeightsError(f"{path} has adapter_config.json but no adapter_model.safetensors")
        return WeightsFolder(path, adapter=True)
    if not any(path.glob("*.safetensors")):
        raise UnusableWeightsError(f"{path} has no *.safetensors file and no adapter")
    return WeightsFolder(path, adapter=False)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in the safetensors files. Raises UnusableWeightsError for an invalid file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes.update(_shapes_of(file))
    return shapes


def _shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, MAX_HEADER_BYTES):
                raise UnusableWeightsError(f"{file} is truncated: its header should have {length} bytes")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        shapes = {name: tuple(int(side) for side in tensor["shape"]) for name, tensor in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableWeightsError(f"{file} is not a safetensors file: {error}") from error
    if size != 8 + length + end:
        raise UnusableWeightsError(f"{file} has {size} bytes, but its header says {8 + length + end}")
    return shapes


def require_same_tensors(live: Path, new: Path) -> None:
    """Raise UnusableWeightsError unless both folders have tensors of the same names and shapes. Ignores `TIED`."""
    have, want = tensor_shapes(new), tensor_shapes(live)
    missing = sorted(want.keys() - have.keys() - TIED)
    unexpected = sorted(have.keys() - want.keys() - TIED)
    reshaped = sorted(name for name in have.keys() & want.keys() if have[name] != want[name])
    for problem, names in (("lacks", missing), ("has unknown", unexpected), ("has differently shaped", reshaped)):
        if names:
            raise UnusableWeightsError(f"{new} {problem} tensors: {', '.join(names[:3])} ({len(names)} in all)")
