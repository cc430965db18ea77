"""What type checkers know of a cached function. Checked by mypy --strict and pyright (strict), never run."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar, assert_type

from otel_perfopt import Cache, CachedFunction, CachedMethod, cached

T = TypeVar("T")

users: Cache[int, str] = Cache("users")


@cached
def plain(x: int, *, loud: bool = False) -> str:
    return str(x).upper() if loud else str(x)


@cached()
def with_call(x: int, y: int = 0) -> int:
    return x + y


@cached(ttl="5m", max_size=10, key=lambda x: str(x), name="names", policy="lru")
def with_options(x: int) -> str:
    return str(x)


@cached(key=lambda x, y: (x, y))
def two(x: int, y: int) -> int:
    return x + y


@cached(cache=users)
async def fetch(x: int) -> str:
    return str(x)


@cached
def first(items: Sequence[T]) -> T:
    return items[0]


class Store:
    @cached
    def get(self, x: int, *, loud: bool = False) -> str:
        return f"{x}{loud}"

    @cached(ttl=5.0)
    async def fetch(self, x: int) -> str:
        return str(x)

    @classmethod
    @cached
    def load(cls, x: int) -> int:
        return x

    @cached
    @classmethod
    def load_inside(cls, x: int) -> int:
        return x

    @classmethod
    @cached
    def create(cls, _x: int) -> Self:
        return cls()

    @staticmethod
    @cached
    def parse(text: str) -> int:
        return int(text)

    @cached
    @staticmethod
    def parse_inside(text: str) -> int:
        return int(text)

    @property
    @cached
    def size(self) -> int:
        return 1

    @cached
    def itself(self, _x: int) -> Self:
        return self


class Child(Store):
    pass


def functions() -> None:
    # Result, parameters, keyword-only parameters.
    assert_type(plain(1), str)
    assert_type(plain(x=1, loud=True), str)
    assert_type(with_call(1), int)
    assert_type(with_options(1), str)
    plain("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    plain()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    # The attributes.
    assert_type(plain.cache, Cache[Any, str])
    assert_type(plain.cache.get(1), str | None)
    assert_type(plain.invalidate(1, loud=True), bool)
    assert_type(plain.__wrapped__(1, loud=True), str)
    assert_type(plain.__name__, str)
    plain.invalidate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain.nothing()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    # It is a callable, and its own type can be written down.
    as_callable: Callable[[int], str] = plain
    as_cached: CachedFunction[[int], str] = with_options
    assert_type([as_callable(1), as_cached(1)], list[str])
    wrong: Callable[[str], str] = plain  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong("1")
    # Called as a function, not as a decorator.
    assert_type(cached(re.escape)("a.b"), str)
    assert_type(cached(ttl=1)(len).invalidate(""), bool)
    # Generic functions stay generic.
    assert_type(first([1]), int)
    assert_type(first("a"), str)
    # Options are checked.
    cached(ttl=[])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    cached(policy="fifo")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def coroutines(store: Store) -> None:
    # A cache of a coroutine function holds what the coroutine returns.
    assert_type(await fetch(1), str)
    assert_type(fetch.cache, Cache[Any, str])
    assert_type(fetch.invalidate(1), bool)
    as_callable: Callable[[int], Awaitable[str]] = fetch
    assert_type(await as_callable(1), str)
    await fetch("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bound: CachedMethod[[int], Awaitable[str]] = store.fetch
    assert_type(await bound(1), str)
    assert_type(await store.fetch(1), str)
    assert_type(await Store.fetch(store, 1), str)
    assert_type(store.fetch.cache, Cache[Any, str])


def methods(store: Store, child: Child) -> None:
    # Through an instance.
    assert_type(store.get(1, loud=True), str)
    assert_type(child.get(1), str)
    assert_type(store.get.cache, Cache[Any, str])
    as_callable: Callable[[int], str] = store.get
    assert_type(as_callable(1), str)
    store.get("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    # Through the class.
    assert_type(Store.get(store, 1), str)
    assert_type(Store.get.cache, Cache[Any, str])
    assert_type(Store.get.invalidate(store, 1), bool)
    assert_type(Child.get.invalidate(child, 1), bool)
    Store.get(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    Store.get.invalidate(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    # `invalidate` of a bound method still wants the instance, as at run time.
    assert_type(store.get.invalidate(store, 1), bool)
    store.get.invalidate(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    # Self and properties.
    assert_type(store.itself(1), Store)
    assert_type(child.itself(1), Child)
    assert_type(store.size, int)


def class_and_static_methods(store: Store) -> None:
    # Both orders of the decorators, through the class and through an instance.
    assert_type(Store.load(1), int)
    assert_type(store.load(1), int)
    assert_type(Store.load_inside(1), int)
    assert_type(store.load_inside(1), int)
    assert_type(Store.load.cache, Cache[Any, int])
    assert_type(Store.load.invalidate(Store, 1), bool)
    assert_type(Store.create(1), Store)
    assert_type(Child.create(1), Child)
    Store.load("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(Store.parse("1"), int)
    assert_type(store.parse("1"), int)
    assert_type(Store.parse_inside("1"), int)
    assert_type(store.parse_inside("1"), int)
    assert_type(Store.parse.cache, Cache[Any, int])
    assert_type(Store.parse.invalidate("1"), bool)
    Store.parse(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
