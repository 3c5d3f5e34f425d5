"""The right to change one policy's checkpoints. The trainer that started last has it; earlier ones are refused.

    writer-00000007-3f9a01c2/      the claim of the seventh trainer on this folder; the eighth removes it

A trainer that was stopped, and continues after another one has started, cannot know that. Checking the claim before a
change is not enough: the trainer may be stopped between the two. So every change is a rename through the claim's
folder, which fails once that is gone (ADR 27). Needs a file system with atomic renames. Knows no checkpoints.
"""

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLAIM = re.compile(r"writer-(\d{8,})-([0-9a-f]{8})")
_ASIDE = re.compile(r".*\.(\d+)-([0-9a-f]{8})\.tmp")
_Name = tuple[int, str]
"""A claim's number, and a random part: a number can be taken again once its claim was removed, a claim cannot."""


class FencedError(RuntimeError):
    """A later trainer has claimed the checkpoints. The process must end; nothing that it still does may count."""


class FolderClaim:
    """A trainer's claim on the folder `root`. Made by `take`; lost when another one is taken."""

    def __init__(self, root: Path, name: _Name) -> None:
        self._root = root
        self._name = name
        self._folder = root / f"writer-{name[0]:08d}-{name[1]}"

    @classmethod
    def take(cls, root: Path) -> "FolderClaim":
        """Claim `root`, which is created if it is missing. When this returns, no earlier claim can change anything."""
        root.mkdir(parents=True, exist_ok=True)
        while True:
            newest, _ = max(_claims(root), default=(0, ""))
            claim = cls(root, (newest + 1, secrets.token_hex(4)))
            claim._folder.mkdir()
            claims = _claims(root)
            if max(claims, default=None) == claim._name:
                break  # else another trainer starts, too
        for older, folder in claims.items():
            if older < claim._name:
                claim._remove(folder)
        claim._remove_leftovers()
        return claim

    def check(self) -> None:
        """Raise `FencedError` if the claim is lost. It can be lost right after this; `replace` and `discard` cannot."""
        if not self._folder.is_dir():
            raise FencedError(
                f"another trainer has started on {self._root}, so this one stops; nothing that it had saved is lost. "
                "Run one trainer per policy"
            )

    def aside(self, name: str) -> Path:
        """Where to prepare what `replace` puts in place. No other trainer uses or removes it while the claim holds."""
        return self._root / f"{name}.{self._name[0]}-{self._name[1]}.tmp"

    def replace(self, source: Path, target: Path) -> None:
        """Rename `source` to `target` at once. Raises `FencedError`, and then `target` is unchanged."""
        with self.or_fenced():
            self._move_in(source).rename(target)

    def discard(self, folder: Path) -> None:
        """Delete `folder` and what is in it. Raises `FencedError`; it may be gone then."""
        with self.or_fenced():
            shutil.rmtree(self._move_in(folder))

    @contextmanager
    def or_fenced(self) -> Iterator[None]:
        """Raise `FencedError` for an error in the block if the claim is lost: a later trainer removes leftovers."""
        try:
            yield
        except Exception as error:
            try:
                self.check()
            except FencedError as fenced:
                raise fenced from error
            raise

    def _move_in(self, path: Path) -> Path:
        return path.rename(self._folder / path.name)

    def _remove(self, older: Path) -> None:
        aside = self.aside(older.name)
        try:
            older.rename(aside)
        except FileNotFoundError:
            return  # a trainer that starts now removed it
        shutil.rmtree(aside, ignore_errors=True)  # a later trainer may remove it at the same time

    def _remove_leftovers(self) -> None:
        """Remove what earlier trainers prepared and did not put in place."""
        for path in self._root.glob("*.tmp"):
            made_by = _ASIDE.fullmatch(path.name)
            if made_by is None or (int(made_by[1]), made_by[2]) < self._name:
                # An earlier trainer may still be writing there; what it adds is removed at the next start.
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _claims(root: Path) -> dict[_Name, Path]:
    return {(int(found[1]), found[2]): path for path in root.iterdir() if (found := _CLAIM.fullmatch(path.name))}
