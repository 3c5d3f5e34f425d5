"""What a folder of weights holds, read from its files' headers alone: no tensor is loaded here."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""

TIED = frozenset({"lm_head.weight"})
"""Present or absent in a checkpoint, as the writer chose, where input and output embeddings are one tensor."""


class UnusableWeightsError(Exception):
    """The folder cannot be served by this engine, now or later; what is live stays live."""


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """A folder that holds a full model or, with `adapter`, a PEFT adapter."""

    path: Path
    adapter: bool


def inspect_folder(path: Path) -> WeightsFolder:
    """Say what `path` holds; raises UnusableWeightsError unless it is a model or an adapter in whole safetensors."""
    if not path.is_dir():
        raise UnusableWeightsError(f"{path} is not a folder that the engine can read")
    tensor_shapes(path)
    if (path / "adapter_config.json").is_file():
        if not (path / "adapter_model.safetensors").is_file():
            raise UnusableWeightsError(f"{path} has adapter_config.json but no adapter_model.safetensors")
        return WeightsFolder(path, adapter=True)
    if not any(path.glob("*.safetensors")):
        raise UnusableWeightsError(f"{path} has no *.safetensors file and no adapter")
    return WeightsFolder(path, adapter=False)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in the safetensors files; raises UnusableWeightsError on a torn file."""
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
                raise UnusableWeightsError(f"{file} is cut short: its header alone would be {length} bytes")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        shapes = {name: tuple(int(side) for side in tensor["shape"]) for name, tensor in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableWeightsError(f"{file} is no safetensors file: {error}") from error
    if size != 8 + length + end:
        raise UnusableWeightsError(f"{file} is cut short: {size} bytes of {8 + length + end}")
    return shapes


def require_same_tensors(live: Path, new: Path) -> None:
    """Raise UnusableWeightsError unless both folders hold the same tensors by name and shape (tied ones aside)."""
    have, want = tensor_shapes(new), tensor_shapes(live)
    missing = sorted(want.keys() - have.keys() - TIED)
    unexpected = sorted(have.keys() - want.keys() - TIED)
    reshaped = sorted(name for name in have.keys() & want.keys() if have[name] != want[name])
    for problem, names in (("lacks", missing), ("has unknown", unexpected), ("has reshaped", reshaped)):
        if names:
            raise UnusableWeightsError(f"{new} {problem} tensors: {', '.join(names[:3])} ({len(names)} in all)")
