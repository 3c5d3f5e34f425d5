"""Extensions: finds a named plugin among the built-in ones and the entry points of installed packages.

It loads and checks them. The module that owns an entry point group documents what an extension must implement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class ExtensionError(ValueError):
    """An extension cannot be used. The message names its package and the problem."""


@cache
def installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of `group` by name. Cached, because scanning all installed packages takes milliseconds."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, {})[point.value] = point
    return {name: tuple(points.values()) for name, points in sorted(found.items())}


@dataclass(frozen=True)
class Extensions(Generic[T]):
    """All implementations of one kind (graders, say) that a run file can name: built-in ones and installed ones."""

    kind: str
    """Used in error messages: "grader"."""
    group: str
    """Entry point group: "leyden.graders"."""
    built_in: Mapping[str, T]
    accepts: Callable[[object], bool]
    """Whether a loaded object is a `T`."""
    wanted: str
    """What `accepts` requires, for error messages: "a subclass of Grader"."""

    @property
    def names(self) -> list[str]:
        """All names that `find` accepts, built-in ones first."""
        return [*self.built_in, *(name for name in installed(self.group) if name not in self.built_in)]

    def find(self, name: str) -> T:
        """The implementation called `name`. Imports only the package that defines it.

        Raises ExtensionError if the name is unknown or defined more than once, or if the entry point cannot be used.
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


def configured(known: Extensions[type[M]], said: str | Mapping[str, Any] | M) -> M:
    """What a run file means by a name, or by a mapping of `name` and parameters.

    Raises ValueError (ExtensionError if it is the name) that lists the known names, or the parameters of that name.
    """
    if isinstance(said, BaseModel):
        return said
    parameters = dict(said) if isinstance(said, Mapping) else {"name": said}
    name = parameters.get("name")
    if not isinstance(name, str):
        raise ExtensionError(f"{known.kind} {name!r} is not one of {', '.join(known.names)}")
    kind = known.find(name)
    try:
        return kind.model_validate(parameters)
    except ValidationError as error:
        names = ", ".join(field.alias or name for name, field in kind.model_fields.items() if name != "name") or "none"
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"{known.kind} {name} (parameters: {names}): {wrong}") from None


def subclass_of(base: type) -> Callable[[object], bool]:
    """A value for `Extensions.accepts`: whether an object is a subclass of `base`."""
    return lambda found: isinstance(found, type) and issubclass(found, base)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown)"
