"""Wraps functions of any kind in a scope (a rollout, an operation, a tool call); shared by all decorators.

Works for plain and async functions, generators and async generators, static and class methods, and classes with
`__call__`. A generator's scope lasts from its first item to its end; exhausting or closing it is not an error. Its body
runs in its own context, so that the caller is outside the scope between two items.
"""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")

MAX_ITEMS = 10_000
"""Maximum items of a generator that are kept as its result; a string counts as one per thousand characters."""


class Scope(Protocol):
    """A context manager. Async functions use its `__aenter__` and `__aexit__` if it has them."""

    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any: ...
    def keep(self, result: Any) -> None:
        """Receive the function's result, before the exit."""


Open = Callable[[tuple[Any, ...], dict[str, Any]], Scope]
"""A new scope for one call with these arguments."""


def wrap(function: T, open_scope: Open) -> T:
    """`function` with a scope around each call. Raises TypeError for what cannot be called."""
    return cast("T", _wrapped(function, open_scope))


def name_of(function: Any, default: str) -> str:
    """The function's name, else its type's, else `default`."""
    return str(getattr(function, "__name__", None) or getattr(type(function), "__name__", default))


def _wrapped(function: Any, open_scope: Open) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_wrapped(function.__func__, open_scope))
    if inspect.isclass(function):
        call = function.__dict__.get("__call__") or getattr(function, "__call__", None)  # noqa: B004 - its value
        if call is None or isinstance(call, types.MethodWrapperType):
            raise TypeError(f"{function.__name__} defines no __call__: decorate the method that does the work")
        setattr(function, "__call__", _wrapped(call, open_scope))  # noqa: B010 - mypy forbids the assignment
        return function
    if not callable(function):
        raise TypeError(f"{function!r} cannot be decorated: it is not callable")
    plain = function if inspect.isroutine(function) or isinstance(function, functools.partial) else function.__call__
    if inspect.isasyncgenfunction(plain):
        return _async_generator(function, open_scope)
    if inspect.isgeneratorfunction(plain):
        return _generator(function, open_scope)
    return _async(function, open_scope) if inspect.iscoroutinefunction(plain) else _sync(function, open_scope)


def _sync(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with (scope := open_scope(args, kwargs)):
            result = function(*args, **kwargs)
            scope.keep(result)
            return result

    return run


def _async(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        async with AsyncScope(open_scope(args, kwargs)) as scope:
            result = await function(*args, **kwargs)
            scope.keep(result)
            return result

    return run


def _generator(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        context, scope, yielded = copy_context(), open_scope(args, kwargs), Yielded()
        context.run(scope.__enter__)
        try:
            steps = InContext(context, context.run(function, *args, **kwargs), yielded)
            result = yield from steps
        except GeneratorExit:
            scope.keep(yielded.value())
            context.run(scope.__exit__, None, None, None)
            raise
        except BaseException as error:
            context.run(scope.__exit__, type(error), error, error.__traceback__)
            raise
        scope.keep(yielded.value() if result is None else result)
        context.run(scope.__exit__, None, None, None)
        return result

    return run


def _async_generator(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        context, scope, yielded = copy_context(), AsyncScope(open_scope(args, kwargs)), Yielded()
        entered = await in_context(context, scope.__aenter__())
        try:
            inner: AsyncGenerator[Any, Any] = context.run(function, *args, **kwargs)
            step = inner.__anext__()
            while True:
                try:
                    item = await in_context(context, step)
                except StopAsyncIteration:
                    break
                yielded.add(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    await in_context(context, inner.aclose())
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the caller, for the generator to handle
                    step = inner.athrow(error)
                else:
                    step = inner.asend(sent)
        except GeneratorExit:
            entered.keep(yielded.value())
            await in_context(context, scope.__aexit__(None, None, None))
            raise
        except BaseException as error:
            await in_context(context, scope.__aexit__(type(error), error, error.__traceback__))
            raise
        entered.keep(yielded.value())
        await in_context(context, scope.__aexit__(None, None, None))

    return run


class AsyncScope:
    """Adapts any scope to `async with`."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    async def __aenter__(self) -> Scope:
        """Enter, with the scope's own `__aenter__` if it has one."""
        enter = getattr(self._scope, "__aenter__", None)
        if enter is None:
            self._scope.__enter__()
        else:
            await enter()
        return self._scope

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave."""
        leave = getattr(self._scope, "__aexit__", None)
        if leave is None:
            self._scope.__exit__(kind, error, traceback)
        else:
            await leave(kind, error, traceback)


class Yielded:
    """Collects what a generator yields."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._size = 0.0

    def add(self, item: Any) -> None:
        """Add one item."""
        self._size += 1 if not isinstance(item, str) else 0.02 + len(item) / 1000
        if self._size <= MAX_ITEMS:
            self._items.append(item)

    def value(self) -> Any:
        """The strings joined, else the list; None when there was nothing, or more than `MAX_ITEMS`."""
        if not self._items or self._size > MAX_ITEMS:
            return None
        return "".join(self._items) if all(isinstance(item, str) for item in self._items) else self._items


class InContext(Generator[Any, Any, Any]):
    """A generator (or the steps of an awaitable) whose every step runs in `context`."""

    def __init__(self, context: Context, steps: Any, yielded: Yielded | None = None) -> None:
        self._context = context
        self._steps = steps
        self._yielded = yielded

    def send(self, value: Any) -> Any:
        """The next item, given `value`."""
        take = self._steps.send if hasattr(self._steps, "send") else lambda _: next(self._steps)
        return self._recorded(self._context.run(take, value))

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """The next item, given an exception."""
        error = kind if value is None else value
        if not hasattr(self._steps, "throw"):
            raise error
        return self._recorded(self._context.run(self._steps.throw, error))

    def _recorded(self, item: Any) -> Any:
        if self._yielded is not None:
            self._yielded.add(item)
        return item


@types.coroutine
def in_context(context: Context, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
    """Await in `context` in the same task: a new task would break timeouts and cancel scopes."""
    return cast("T", (yield from InContext(context, context.run(awaitable.__await__))))
