"""A scope around functions of every kind: when it begins, when it ends, and where its context reaches."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from leyden.client.decorators import MAX_ITEMS, wrap

inside: contextvars.ContextVar[int] = contextvars.ContextVar("inside", default=0)


class Recorder:
    """What happened to each scope, in order."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Scope":
        return Scope(self.log)


class Scope:
    def __init__(self, log: list[Any]) -> None:
        self._log = log
        self._kept: Any = None

    def __enter__(self) -> Self:
        self._token = inside.set(inside.get() + 1)
        self._log.append("enter")
        return self

    def keep(self, result: Any) -> None:
        self._kept = result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inside.reset(self._token)
        self._log.append(type(error).__name__ if error else ("exit", self._kept))


@pytest.fixture
def scope() -> Recorder:
    return Recorder()


def test_a_function_keeps_its_name_and_its_result(scope: Recorder) -> None:
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        assert inside.get() == 1
        return a + b

    wrapped = wrap(add, scope)
    assert wrapped(1) == 3
    assert (wrapped.__name__, wrapped.__doc__) == ("add", "Adds.")
    assert inspect.signature(wrapped) == inspect.signature(add)
    assert scope.log == ["enter", ("exit", 3)]


def test_a_generator_is_a_scope_from_its_first_item_to_its_last(scope: Recorder) -> None:
    def stream() -> Iterator[str]:
        for word in ("a", "b"):
            assert inside.get() == 1
            yield word

    wrapped = wrap(stream, scope)
    assert inspect.isgeneratorfunction(wrapped)
    items = wrapped()
    assert scope.log == []
    assert next(items) == "a"
    assert inside.get() == 0
    assert list(items) == ["b"]
    assert scope.log == ["enter", ("exit", "ab")]


def test_a_generator_that_is_closed_early_ended_well_with_what_it_said(scope: Recorder) -> None:
    cleaned = []

    def stream() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(True)

    items = wrap(stream, scope)()
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert (scope.log, cleaned) == (["enter", ("exit", [1])], [True])


def test_a_generator_that_raises_failed(scope: Recorder) -> None:
    def stream() -> Iterator[int]:
        yield 1
        raise KeyError("page")

    with pytest.raises(KeyError):
        list(wrap(stream, scope)())
    assert scope.log == ["enter", "KeyError"]


def test_a_generator_takes_what_is_sent_and_thrown_and_returns_its_value(scope: Recorder) -> None:
    def talk() -> Any:
        got = yield "first"
        try:
            yield got
        except ValueError:
            yield "caught"
        return "done"

    items = wrap(talk, scope)()
    assert (next(items), items.send("sent"), items.throw(ValueError())) == ("first", "sent", "caught")
    with pytest.raises(StopIteration) as stopped:
        next(items)
    assert stopped.value.value == "done"
    assert scope.log == ["enter", ("exit", "done")]


def test_two_generators_side_by_side_do_not_mix(scope: Recorder) -> None:
    def stream() -> Iterator[int]:
        yield inside.get()
        yield inside.get()

    wrapped = wrap(stream, scope)
    assert list(zip(wrapped(), wrapped(), strict=True)) == [(1, 1), (1, 1)]
    assert inside.get() == 0


def test_a_long_stream_is_not_kept(scope: Recorder) -> None:
    def stream() -> Iterator[int]:
        yield from range(MAX_ITEMS + 1)

    for _ in wrap(stream, scope)():
        pass
    assert scope.log == ["enter", ("exit", None)]


async def test_an_async_function_is_a_scope(scope: Recorder) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return inside.get()

    wrapped = wrap(work, scope)
    assert inspect.iscoroutinefunction(wrapped)
    assert await asyncio.gather(wrapped(), wrapped()) == [1, 1]
    assert scope.log.count(("exit", 1)) == 2


async def test_an_async_generator_is_a_scope_in_its_callers_task(scope: Recorder) -> None:
    tasks = set()

    async def stream() -> AsyncIterator[str]:
        for word in ("a", "b"):
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            tasks.add(asyncio.current_task())
            assert inside.get() == 1
            yield word

    wrapped = wrap(stream, scope)
    assert inspect.isasyncgenfunction(wrapped)
    said = []
    async for word in wrapped():
        assert inside.get() == 0
        said.append(word)
    assert said == ["a", "b"]
    assert tasks == {asyncio.current_task()}
    assert scope.log == ["enter", ("exit", "ab")]


async def test_an_async_generator_is_closed_and_fails_like_a_plain_one(scope: Recorder) -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise KeyError("page")

    items = wrap(stream, scope)()
    assert await anext(items) == 1
    await items.aclose()  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        async for _ in wrap(stream, scope)():
            pass
    assert scope.log == ["enter", ("exit", [1]), "enter", "KeyError"]


async def test_cancelling_an_async_generators_caller_cancels_it(scope: Recorder) -> None:
    waiting = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        yield 1
        waiting.set()
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in wrap(stream, scope)():
            pass

    reading = asyncio.create_task(read())
    await waiting.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert scope.log == ["enter", "CancelledError"]


def test_methods_of_all_kinds_and_classes_can_be_wrapped(scope: Recorder) -> None:
    def each(function: Any) -> Any:
        return wrap(function, scope)

    class Agent:
        @each
        def method(self, x: int) -> int:
            return x

        @each
        @staticmethod
        def static(x: int) -> int:
            return x

        @each
        @classmethod
        def of_class(cls, x: int) -> int:
            return x

    agent = Agent()
    assert (agent.method(1), agent.static(2), agent.of_class(3)) == (1, 2, 3)

    @each
    class Callable:
        def __call__(self, x: int) -> int:
            return x

    assert inspect.isclass(Callable)
    assert Callable()(4) == 4
    assert each(functools.partial(agent.method, 5))() == 5
    assert [entry[1] for entry in scope.log if entry != "enter"] == [1, 2, 3, 4, 5, 5]


def test_what_cannot_be_called_is_refused(scope: Recorder) -> None:
    with pytest.raises(TypeError, match="decorate the method"):
        wrap(type("Plain", (), {}), scope)
    with pytest.raises(TypeError, match="not callable"):
        wrap(7, scope)
