import json
import struct
from pathlib import Path

import pytest

from leyden.policy.engines.naming import VersionName
from leyden.policy.engines.weights import UnusableWeightsError, inspect_folder, require_same_tensors, tensor_shapes


def write_weights(folder: Path, shapes: dict[str, list[int]], cut: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}  # type: ignore[assignment]
        at += size
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(at)
    (folder / "model.safetensors").write_bytes(whole[: len(whole) - cut])
    return folder


def test_shapes_are_read_from_the_header(tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "m", {"a": [2, 3], "b": []})
    assert tensor_shapes(folder) == {"a": (2, 3), "b": ()}
    assert not inspect_folder(folder).adapter


@pytest.mark.parametrize("cut", [1, 24, 80])
def test_a_file_cut_short_is_unusable(tmp_path: Path, cut: int) -> None:
    with pytest.raises(UnusableWeightsError):
        inspect_folder(write_weights(tmp_path / "m", {"a": [2, 3]}, cut))


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 2) + b"[]"])
def test_what_is_no_safetensors_file_is_unusable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UnusableWeightsError):
        inspect_folder(tmp_path)


def test_an_adapter_is_known_by_its_config(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnusableWeightsError, match="adapter_model"):
        inspect_folder(tmp_path)
    write_weights(tmp_path, {"a": [1]})
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    assert inspect_folder(tmp_path).adapter


@pytest.mark.parametrize("shapes", [{"a": [2, 3]}, {"a": [2, 3], "b": [1], "c": [1]}, {"a": [3, 2], "b": [1]}])
def test_other_tensors_than_the_live_ones_are_refused(tmp_path: Path, shapes: dict[str, list[int]]) -> None:
    live = write_weights(tmp_path / "live", {"a": [2, 3], "b": [1]})
    with pytest.raises(UnusableWeightsError):
        require_same_tensors(live, write_weights(tmp_path / "new", shapes))


def test_a_tied_output_embedding_may_be_there_or_not(tmp_path: Path) -> None:
    tied = write_weights(tmp_path / "tied", {"a": [2, 3]})
    written_out = write_weights(tmp_path / "out", {"a": [2, 3], "lm_head.weight": [2, 3]})
    require_same_tensors(tied, written_out)
    require_same_tensors(written_out, tied)


def test_a_version_name_reads_back() -> None:
    assert VersionName.parse("my@policy@12") == VersionName("my@policy", 12)
    assert str(VersionName("p", 3)) == "p@3"


@pytest.mark.parametrize("text", ["", "p", "p@", "@1", "p@-1", "p@1.0", "p@²"])
def test_what_is_no_version_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        VersionName.parse(text)
