"""How to call one function of the run file, as serialisable data, and how to load it."""

from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import entry_points

import orjson

from leyden.events import JsonObject
from leyden.reward.graders import grader_of
from leyden.reward.sandbox.call import AnyFunction
from leyden.run_file_errors import nearest

GROUP = "leyden.reward_functions"


class UnusableFunctionError(ValueError):
    """The run file names a function that cannot be loaded. The message lists the available ones."""


@dataclass(frozen=True)
class CallSpec:
    """A function to call, and its limits."""

    entry: str = ""
    """Entry point or `module:function`; "" if it is a grader."""
    grader: str = ""
    parameters: JsonObject = field(default_factory=dict)
    """Parameters of the grader."""
    batched: bool = False
    timeout_s: float = 10.0
    memory_mb: int = 1024
    writable: tuple[str, ...] = ()
    """Folders in which it may write, besides its own."""
    environment: tuple[str, ...] = ()
    """Names of the service's environment variables that it gets."""

    @property
    def called(self) -> str:
        """Its name in messages."""
        return self.entry or self.grader

    def encode(self) -> bytes:
        """JSON for the worker."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, body: bytes) -> "CallSpec":
        """The inverse of `encode`."""
        return cls(**orjson.loads(body))

    def load(self) -> AnyFunction:
        """Load the function. Raises `UnusableFunctionError`."""
        if self.grader:
            return grader_of(self.grader).model_validate(self.parameters)
        return load_function(self.entry)


def load_function(entry: str) -> AnyFunction:
    """Load the function named `entry`. Raises `UnusableFunctionError`, which lists the installed ones."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    module, colon, name = entry.partition(":")
    try:
        if entry in known:
            found = known[entry].load()
        elif colon:
            home = import_module(module)
            if not hasattr(home, name):
                near = nearest(name, (one for one, value in vars(home).items() if callable(value)))
                hint = f"; did you mean {near}?" if near else ""
                raise UnusableFunctionError(f"reward function {entry!r}: {module} has no function {name!r}{hint}")
            found = getattr(home, name)
        else:
            names = ", ".join(sorted(known)) or "none is installed"
            raise UnusableFunctionError(
                f"reward function {entry!r}: no entry point of {GROUP} ({names}), nor module:function"
            )
    except (ImportError, AttributeError) as error:
        raise UnusableFunctionError(f"reward function {entry!r} cannot be imported: {error}") from error
    if not callable(found):
        raise UnusableFunctionError(f"reward function {entry!r} is a {type(found).__name__}, not a function")
    function: AnyFunction = found
    return function
