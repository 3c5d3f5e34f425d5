"""A function by its name on the command line: `package.module:function`, or `path/to/file.py:function`."""

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leyden.client.errors import ConfigurationError


@dataclass(frozen=True)
class Named:
    """A function in a module, and the folder that the module is imported from if it is not installed."""

    module: str
    function: str
    folder: Path
    file: Path | None = None
    """The file, if it was named by one."""

    @classmethod
    def parse(cls, text: str) -> "Named":
        """Raises `ConfigurationError`: no function is named, or no such file."""
        place, colon, function = text.rpartition(":")
        if not colon or not place or not function:
            raise ConfigurationError(f"{text!r} names no function; write package.module:function or file.py:function")
        if not place.endswith(".py"):
            return cls(place, function, Path.cwd())
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ConfigurationError(f"{text!r}: there is no file {path}")
        if not path.stem.isidentifier():
            raise ConfigurationError(f"{text!r}: {path.name} cannot be imported; use only letters, digits and _ in it")
        return cls(path.stem, function, path.parent, path)

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"

    @property
    def reference(self) -> str:
        """Its name for another process in the same working directory."""
        return f"{self.file or self.module}:{self.function}"

    def load(self) -> Any:
        """Import it, with `folder` first on the path. Raises `ConfigurationError`, which says where it looked."""
        if (folder := str(self.folder)) not in sys.path:
            sys.path.insert(0, folder)
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name is not None and (self.module + ".").startswith(error.name + "."):
                why = f"there is no module {error.name!r} in {folder} or on PYTHONPATH"
            else:
                why = f"{self.module} needs the module {error.name!r}, which is not installed"
            raise ConfigurationError(f"{str(self)!r}: {why}") from error
        except Exception as error:
            why = f"importing {self.module} failed: {type(error).__name__}: {error}"
            raise ConfigurationError(f"{str(self)!r}: {why}") from error
        found: Any = module
        for part in self.function.split("."):
            if not hasattr(found, part):
                has = ", ".join(_functions(module)) or "none"
                raise ConfigurationError(
                    f"{str(self)!r}: {getattr(module, '__file__', self.module)} has no {self.function!r}; "
                    f"its functions: {has}"
                )
            found = getattr(found, part)
        if not callable(found):
            raise ConfigurationError(f"{str(self)!r} is a {type(found).__name__}, not a function")
        return found


def check_takes(function: Any, what: str) -> None:
    """Raise `ConfigurationError` unless `function` can be called with one argument, which is `what`."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(object())
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise ConfigurationError(
            f"{name}{signature} cannot be called with ({what}): {error}; it must take one argument"
        ) from error


def _functions(module: Any) -> list[str]:
    """The functions that are defined in the module itself."""
    own = getattr(module, "__name__", None)
    return [n for n, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == own]
