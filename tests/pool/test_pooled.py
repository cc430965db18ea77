"""`@pooled` and `get_pool`."""

import asyncio
import copy
import inspect
import pickle
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from otel_perfopt.errors import PoolTimeout, UnknownName
from otel_perfopt.pool import AsyncResourcePool, ResourcePool, get_pool, pooled
from otel_perfopt.registry import POOL_REGISTRY, DuplicateNameWarning


class Thing:
    """A resource."""

    def double(self, number: int) -> int:
        """Do something."""
        return 2 * number


shared = ResourcePool("pooled functions", Thing, min_size=0, max_size=1)
shared_tasks: AsyncResourcePool[Thing] = AsyncResourcePool("pooled coroutines", Thing, min_size=0, max_size=1)


@pooled(shared)
def double(thing: Thing, number: int, *, loud: bool = False) -> int:
    """Double a number."""
    assert shared.stats().in_use == 1
    return thing.double(number) + loud


class Service:
    """Has methods that need a resource."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @pooled(shared)
    def scale(self, thing: Thing, number: int) -> int:
        """Scale a number."""
        return self.factor * thing.double(number)

    @pooled(shared_tasks)
    async def scale_async(self, thing: Thing, number: int) -> int:
        """Do the same."""
        return self.factor * thing.double(number)

    @classmethod
    @pooled(shared)
    def name(cls, thing: Thing) -> str:
        """Return the name."""
        return f"{cls.__name__} {thing.double(1)}"

    @staticmethod
    @pooled(shared)
    def parse(thing: Thing, text: str) -> int:
        """Parse a number."""
        return thing.double(int(text))


def test_functions_and_methods() -> None:
    """Callers leave the resource out, and it is returned when the call ends."""
    assert double(3) == 6
    assert double(number=3, loud=True) == 7
    service = Service(5)
    assert (service.scale(3), Service.scale(service, 3), service.scale(number=3)) == (30, 30, 30)
    assert (Service.name(), service.name(), Service.parse("4"), service.parse("4")) == ("Service 2", "Service 2", 8, 8)
    assert (shared.stats().in_use, shared.stats().available, shared.stats().total_created) == (0, 1, 1)


def test_coroutine_functions() -> None:
    """They have a pool of their own kind, and are still coroutine functions."""

    async def main() -> list[int]:
        service = Service(5)
        return await asyncio.gather(*(service.scale_async(number) for number in range(3)))

    assert asyncio.run(main()) == [0, 10, 20]
    assert inspect.iscoroutinefunction(Service.scale_async)
    assert shared_tasks.stats().in_use == 0


def test_it_is_still_the_function() -> None:
    """Its name and docstring; its signature is that of its callers; it pickles and copies by name."""
    assert (double.__name__, double.__doc__, double.__module__) == ("double", "Double a number.", __name__)
    functions: tuple[Any, ...] = (double, Service.scale, Service(1).scale, Service.parse, Service.name)
    signatures = [inspect.signature(function) for function in functions]
    assert [str(signature).partition(" ->")[0] for signature in signatures] == [
        "(number: int, *, loud: bool = False)",
        "(self, number: int)",
        "(number: int)",
        "(text: str)",
        "()",
    ]
    assert pickle.loads(pickle.dumps(double)) is double
    assert pickle.loads(pickle.dumps(Service(4).scale))(1) == 8
    assert copy.deepcopy(double) is copy.copy(double) is double


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(2), asyncio.CancelledError()])
def test_errors_get_through(error: BaseException) -> None:
    """As they are, and the resource is returned."""

    @pooled(shared)
    def fail(_: Thing) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert shared.stats().in_use == 0


def test_recursion_is_told_at_the_deadline() -> None:
    """A function that calls itself needs a resource for each level."""
    pool = ResourcePool("recursive", Thing, max_size=2, acquire_timeout=0.001, min_size=2)
    pool.open(timeout=10)

    @pooled(pool)
    def recurse(thing: Thing, depth: int) -> int:
        return recurse(depth - 1) if depth else thing.double(1)

    assert recurse(1) == 2
    with pytest.raises(PoolTimeout, match="which is the caller itself"):
        recurse(2)
    assert pool.close()


def test_pools_by_name(name: str) -> None:
    """Looked up at each call, so that the pool may be made later and replaced; a wrong kind is told then."""

    @pooled(name)
    def use(thing: Any) -> Any:
        return thing

    @pooled(name)
    async def use_async(thing: Any) -> Any:
        return thing

    with pytest.raises(UnknownName, match=re.escape(f"no pool is named {name!r}; there are: ")):
        use()
    pools: list[Any] = [ResourcePool(name, factory) for factory in (lambda: ["first"], lambda: ["second"])]
    assert use() == ["second"]
    with pytest.raises(TypeError, match=r"use_async\(\) is a coroutine function and needs AsyncResourcePool, but"):
        asyncio.run(use_async())
    assert [pool.close() for pool in pools] == [True, True]


def generator(_: Thing) -> Iterator[int]:
    """Yield something."""
    yield 1


async def async_generator(_: Thing) -> AsyncIterator[int]:
    """Yield something."""
    yield 1


async def coroutine(_: Thing) -> int:
    """Return something."""
    return 1


@pytest.mark.parametrize(
    ("pool", "function", "message"),
    [
        (shared, generator, r"cannot serve the generator .*\.generator\(\); use pool.lease\(\) inside it"),
        (shared_tasks, async_generator, r"cannot serve the generator .*async_generator\(\)"),
        (shared, coroutine, r"coroutine\(\) is a coroutine function and needs AsyncResourcePool, but pool 'pooled functions' is"),
        (shared_tasks, len, r"len\(\) is a function and needs ResourcePool, but pool 'pooled coroutines' is of type Async"),
    ],
)
def test_functions_and_pools_that_do_not_go_together(pool: Any, function: Callable[..., Any], message: str) -> None:
    """That is said when it is decorated."""
    with pytest.raises(TypeError, match=message):
        pooled(pool)(function)


def test_decorator_without_a_pool() -> None:
    """The commonest slip has a message of its own."""
    with pytest.raises(TypeError, match=r"@pooled takes a pool or its name, not <function .*; write @pooled\(pool\)"):
        pooled(lambda thing: thing)  # type: ignore[call-overload]


def test_get_pool(name: str) -> None:
    """By name, and of the kind that is asked for."""
    pool = ResourcePool(name, Thing)
    assert get_pool(name) is get_pool(name, ResourcePool) is pool
    with pytest.raises(TypeError, match=re.escape(f"pool {name!r} is of type ResourcePool, not AsyncResourcePool")):
        get_pool(name, AsyncResourcePool)
    with pytest.raises(UnknownName, match=r"no pool is named 'nope'; there are: .*'pooled functions'") as caught:
        get_pool("nope")
    assert name in caught.value.context["known"]


def test_get_pool_builds_what_was_declared(name: str) -> None:
    """At its first use."""
    built: list[str] = []
    POOL_REGISTRY.declare(name, lambda: built.append(name) or ResourcePool(name, Thing))  # type: ignore[func-returns-value]
    assert built == []
    assert get_pool(name) is get_pool(name)
    assert built == [name]


def test_names_that_are_used_twice(name: str) -> None:
    """The same definition takes its name over silently, another one with a warning that names both places."""
    pools: list[Any] = [ResourcePool(name, Thing) for _ in range(2)]
    assert get_pool(name) is pools[1]
    with pytest.warns(DuplicateNameWarning, match=f"'{re.escape(name)}' is defined twice: by .*test_pooled") as caught:
        other: AsyncResourcePool[Thing] = AsyncResourcePool(name, Thing)
    assert caught[0].filename == __file__
    assert get_pool(name, AsyncResourcePool) is other


def test_bug_what_would_use_the_resource_later_is_refused(name: str) -> None:
    """A coroutine or a generator that a plain function returns would run when the resource is back in the pool."""

    async def later(thing: Thing) -> None: ...

    pool = ResourcePool(name, Thing)
    for function in (later, lambda thing: (number for number in range(3))):
        with pytest.raises(TypeError, match="which would use the resource later"):
            pooled(pool)(lambda thing, function=function: function(thing))()
    assert pool.stats().in_use == 0
    assert pool.close()
