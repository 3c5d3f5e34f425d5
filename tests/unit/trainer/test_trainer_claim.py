"""Several trainers on one folder, each stopped at any line while others go on: only the last to start changes it."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.trainer import claim as claim_module
from leyden.trainer.claim import FencedError, FolderClaim
from stepping import interleave

KEEP = 2


class Writer:
    """A trainer as far as files go: each step is the one before it and the writer's name; only the newest are kept."""

    def __init__(self, root: Path, name: str, steps: int) -> None:
        self.root, self.name, self.steps = root, name, steps
        self.told: list[str] = []
        """The steps that it saved, and would publish."""

    def __call__(self) -> None:
        claim = FolderClaim.take(self.root)
        held = newest(self.root)
        for _ in range(self.steps):
            held = [*held, self.name]
            aside = claim.aside(f"step-{len(held)}")
            aside.mkdir()
            (aside / "state").write_text(" ".join(held))
            claim.replace(aside, self.root / f"step-{len(held)}")
            self.told.append(" ".join(held))
            for old in range(1, len(held) - KEEP + 1):
                if (folder := self.root / f"step-{old}").exists():
                    claim.discard(folder)


def stored(root: Path) -> dict[int, list[str]]:
    return {int(f.name.partition("-")[2]): (f / "state").read_text().split() for f in root.glob("step-*[0-9]")}


def newest(root: Path) -> list[str]:
    found = stored(root)
    return found[max(found)] if found else []


TURNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=14)


@settings(max_examples=60)
@given(TURNS, st.tuples(*[st.integers(1, 3)] * 3))
def test_every_step_is_made_once_whenever_trainers_are_stopped_and_continued(
    turns: list[tuple[int, int]], steps: tuple[int, int, int]
) -> None:
    assert_one_line(turns, steps)


@pytest.mark.parametrize("lines", range(2, 12))
def test_a_trainer_that_is_stopped_while_it_starts_claims_nothing_that_others_have_claimed_since(lines: int) -> None:
    for second in range(16, 60, 4):
        assert_one_line([(0, lines), (1, 400), (2, second), (0, 400)], (2, 1, 2))


def test_a_claim_that_was_removed_does_not_come_back_when_its_number_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start is stopped between its look at the claims and its own, which then has the number of a removed one."""
    look, others = claim_module._claims, list[FolderClaim]()  # noqa: SLF001 - the place to stop at
    lost: list[bool] = []

    def stopped_look(root: Path) -> object:
        found = look(root)
        if others:
            with pytest.raises(FencedError):
                others[0].check()
            lost.append(True)
        elif not lost:
            monkeypatch.setattr(claim_module, "_claims", look)
            others.extend(FolderClaim.take(root) for _ in range(2))
            monkeypatch.setattr(claim_module, "_claims", stopped_look)
        return found

    monkeypatch.setattr(claim_module, "_claims", stopped_look)
    last = FolderClaim.take(tmp_path)
    assert lost
    last.check()
    with pytest.raises(FencedError):
        others[1].check()


def assert_one_line(turns: list[tuple[int, int]], steps: tuple[int, int, int]) -> None:
    """Let writers run by `turns`: each step has one content, and none that is needed is deleted."""
    root = Path(tempfile.mkdtemp())
    try:
        writers = [Writer(root, name, n) for name, n in zip("abc", steps, strict=True)]
        errors = interleave(writers, [claim_module], turns)
        assert all(error is None or isinstance(error, FencedError) for error in errors), errors
        told = [state for writer in writers for state in writer.told]
        line = newest(root)
        assert sorted(told) == sorted(" ".join(line[:n]) for n in range(1, len(line) + 1)), "one content for each step"
        kept = stored(root)
        assert set(range(max(1, len(line) - KEEP + 1), len(line) + 1)) <= set(kept), "none of the newest is deleted"
        assert all(state == line[:n] for n, state in kept.items())
        last = Writer(root, "d", 2)
        last()
        assert newest(root) == [*line, "d", "d"], "who starts last always can"
        assert not list(root.glob("*.tmp")), "nothing is left over"
    finally:
        shutil.rmtree(root)


def test_a_lost_claim_says_so_and_changes_nothing(tmp_path: Path) -> None:
    first = FolderClaim.take(tmp_path)
    (tmp_path / "kept").mkdir()
    prepared = first.aside("new")
    prepared.mkdir()
    second = FolderClaim.take(tmp_path)
    with pytest.raises(FencedError, match="another trainer has started on"):
        first.check()
    for change in (lambda: first.replace(prepared, tmp_path / "new"), lambda: first.discard(tmp_path / "kept")):
        with pytest.raises(FencedError):
            change()
    second.check()
    assert [path.name.rpartition("-")[0] for path in sorted(tmp_path.iterdir())] == ["", "writer-00000002"]
    assert (tmp_path / "kept").is_dir()


def test_an_error_that_has_another_cause_is_not_taken_for_a_lost_claim(tmp_path: Path) -> None:
    claim = FolderClaim.take(tmp_path)
    with pytest.raises(FileNotFoundError):
        claim.replace(tmp_path / "missing", tmp_path / "new")
