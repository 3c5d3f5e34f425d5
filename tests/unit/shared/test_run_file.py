"""The run file: what is wrong with it is said with the file, the section and the field."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from leyden.settings import RunFileError, load_section


class Credit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    strategy: str = "identical"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_without_a_file_or_a_section_the_defaults_hold(tmp_path: Path) -> None:
    assert load_section(None, "credit", Credit) == Credit()
    assert load_section(write(tmp_path, ""), "credit", Credit) == Credit()
    assert load_section(write(tmp_path, "reward: {}"), "credit", Credit) == Credit()


def test_a_section_is_read(tmp_path: Path) -> None:
    assert load_section(write(tmp_path, "credit: {strategy: step}"), "credit", Credit).strategy == "step"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("credit: {strategi: step}", "section credit.*strategi"),
        ("kredit: {}", "kredit"),
        ("- 1", "sections credit, policy, reward, trainer"),
        ("credit: [", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RunFileError, match=rf"(?s)run\.yaml.*{said}"):
        load_section(write(tmp_path, text), "credit", Credit)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"gone\.yaml"):
        load_section(tmp_path / "gone.yaml", "credit", Credit)
