"""Extensions that installed packages bring: entry points of one group, beside the built-in things of the same kind.

It finds and checks them. What an extension may do is said by the module that owns the group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class ExtensionError(ValueError):
    """An extension cannot be used; the text names its package and what is wrong."""


@cache
def installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of `group` by name. Read once in a process: looking through all packages takes milliseconds."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, {})[point.value] = point
    return {name: tuple(points.values()) for name, points in sorted(found.items())}


@dataclass(frozen=True)
class Extensions(Generic[T]):
    """One kind of thing that a run file names: built-in ones, and those that packages bring."""

    kind: str
    """What errors call it: "grader"."""
    group: str
    """Group of its entry points: "leyden.graders"."""
    built_in: Mapping[str, T]
    accepts: Callable[[object], bool]
    """Whether what an entry point loads is a `T`."""
    wanted: str
    """The same in words, for errors: "a class under Grader"."""

    @property
    def names(self) -> list[str]:
        """Every name that `find` knows, built-in ones first."""
        return [*self.built_in, *(name for name in installed(self.group) if name not in self.built_in)]

    def find(self, name: str) -> T:
        """The thing of that name; only the package that brings it is imported.

        Raises ExtensionError for a name that nobody or more than one has, and for an entry point that cannot be used.
        """
        points = installed(self.group).get(name, ())
        if len(points) + (name in self.built_in) > 1:
            owners = ", ".join([*map(_package, points), *(["leyden"] if name in self.built_in else [])])
            raise ExtensionError(f"{self.kind} {name!r} is defined more than once: by {owners}; uninstall one of them")
        if name in self.built_in:
            return self.built_in[name]
        if not points:
            raise ExtensionError(f"{self.kind} {name!r} is not one of {', '.join(self.names)}")
        return self._load(points[0])

    def _load(self, point: EntryPoint) -> T:
        where = f"{self.kind} {point.name!r}: {point.value} of package {_package(point)}"
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise ExtensionError(f"{where} cannot be imported: {error}") from error
        if not self.accepts(found):
            raise ExtensionError(f"{where} is not {self.wanted}")
        loaded: T = found
        return loaded


def subclass_of(base: type) -> Callable[[object], bool]:
    """For `Extensions.accepts`: whether something is a class under `base`."""
    return lambda found: isinstance(found, type) and issubclass(found, base)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown)"
