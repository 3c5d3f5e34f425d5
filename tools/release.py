"""Cuts a release (`make release VERSION=0.2.0`): version, section of the changelog, schema baseline, commit and tag.

It stops before it changes anything when the tree is not clean, the version is older, the changelog has nothing to
release, or a schema cannot read events of the last release. It pushes nothing.
"""

import argparse
import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

UNRELEASED = "## [Unreleased]"
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
VERSION_LINE = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)


class ReleaseError(Exception):
    """The release cannot be made; the text says why and what to do."""


def number(version: str) -> tuple[int, ...]:
    """`1.2.3` as numbers; raises ReleaseError for any other form."""
    if not (found := VERSION.fullmatch(version)):
        raise ReleaseError(f"{version!r} is not a version: use MAJOR.MINOR.PATCH, for example 0.2.0")
    return tuple(map(int, found.groups()))


def bumped(pyproject: str, version: str) -> str:
    """The text of pyproject.toml with `version`; raises ReleaseError when that is older than what it says."""
    if not (found := VERSION_LINE.search(pyproject)):
        raise ReleaseError('pyproject.toml has no line `version = "…"`')
    if number(version) < number(found[1]):
        raise ReleaseError(f"version {version} is older than {found[1]} in pyproject.toml")
    return VERSION_LINE.sub(f'version = "{version}"', pyproject, count=1)


def cut(changelog: str, version: str, day: dt.date) -> str:
    """The changelog with what is unreleased under a heading of its own, and an empty section above it."""
    before, heading, after = changelog.partition(f"{UNRELEASED}\n")
    if not heading:
        raise ReleaseError(f"CHANGELOG.md has no section {UNRELEASED}")
    unreleased = re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]
    if not re.search(r"^- ", unreleased, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md: nothing stands under {UNRELEASED}; write what users will notice")
    return f"{before}{heading}\n## [{version}] - {day.isoformat()}\n{after}"


def run(root: Path, *command: str) -> str:
    """The output of a command; raises ReleaseError with its errors when it fails."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def release(root: Path, version: str, day: dt.date) -> str:
    """Make the release in the clone at `root` and return its tag."""
    tag = f"v{version}"
    number(version)
    if changed := run(root, "git", "status", "--porcelain"):
        raise ReleaseError(f"there are uncommitted changes; commit or stash them first:\n{changed.rstrip()}")
    if run(root, "git", "tag", "--list", tag):
        raise ReleaseError(f"tag {tag} exists already; choose the next version")
    pyproject, changelog = root / "pyproject.toml", root / "CHANGELOG.md"
    texts = {
        pyproject: bumped(pyproject.read_text(), version),
        changelog: cut(changelog.read_text(), version, day),
    }
    schemas = (sys.executable, "-m", "leyden.events.export", "--schemas", str(root / "schemas"))
    run(root, *schemas, "--check")
    run(root, *schemas, "--release")
    for path, text in texts.items():
        path.write_text(text)
    run(root, "git", "add", "pyproject.toml", "CHANGELOG.md", "schemas")
    run(root, "git", "commit", "--quiet", "--message", f"Release {version}")
    run(root, "git", "tag", "--annotate", tag, "--message", f"Leyden {version}")
    return tag


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cut a release: version, changelog, schema baseline, commit and tag.")
    parser.add_argument("version", help="MAJOR.MINOR.PATCH")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the clone (default: this one)")
    args = parser.parse_args()
    try:
        tag = release(args.root, args.version, dt.datetime.now(dt.UTC).date())
    except ReleaseError as error:
        sys.exit(f"release: {error}")
    print(f"Release committed and tagged {tag}. Look at it, then: git push --follow-tags")


if __name__ == "__main__":
    main()
