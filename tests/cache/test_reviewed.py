"""What a reviewer found, each by name."""

import asyncio
import functools
import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from otel_perfopt import Cache, ConfigurationError, cached, get_cache
from otel_perfopt.telemetry import background


def test_a_wrapper_with_other_defaults_is_called_with_its_own() -> None:
    """What functools.wraps() shows is not what the wrapper takes."""

    def longer(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def inner(timeout: int = 30) -> int:
            return function(timeout)

        return inner

    @cached
    @longer
    def fetch(timeout: int = 1) -> int:
        return timeout

    assert (fetch(), fetch(5)) == (30, 5)


def test_a_wrapper_that_adds_arguments_can_be_called() -> None:
    """The arguments that callers pass are the wrapper's."""

    def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function("database", *args, **kwargs)

        return inner

    class Users:
        def __init__(self, rate: int) -> None:
            self.rate = rate

        @cached
        @mock.patch("os.sep", "|")
        def price(self, number: int) -> int:
            return self.rate * number

    load: Any = cached(with_database(lambda database, user: (database, user)))
    assert load(7) == load(7) == ("database", 7)
    assert load.cache.stats().hit_count == 1
    assert [Users(rate).price(2) for rate in (1, 10)] == [2, 20]


def test_invalidate_of_a_bound_method_is_an_error_also_if_the_argument_has_such_an_attribute() -> None:
    """`str` has a `title`, too."""

    class Cat:
        @cached
        def title(self, language: str = "en") -> str:
            return language

    cat = Cat()
    cat.title("en")
    with pytest.raises(TypeError, match=r"the first argument of .*title\.invalidate\(\) is the instance"):
        cat.title.invalidate("en")
    assert Cat.title.invalidate(cat, "en")


def test_invalidate_ends_whatever_attributes_a_class_has() -> None:
    """A mock has a `__wrapped__` of any depth, and a proxy may raise for every attribute."""

    class Stubborn:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Base:
        @cached
        def value(self, number: int = 1) -> int:
            return number

    class Child(Base):
        client = mock.MagicMock(__wrapped__=mock.MagicMock())
        proxy = Stubborn()

    Child.client.__wrapped__ = Child.client
    child = Child()
    assert child.value() == 1
    assert Base.value.invalidate(child)


def test_nested_loops_in_workers_do_not_wait_for_each_others_jobs() -> None:
    """More loads than workers, each with a loop of its own that wants a worker."""
    outer, inner = Cache[int, int]("reviewed.outer"), Cache[int, int]("reviewed.inner")
    count = background.MAX_WORKERS
    together = threading.Barrier(count, timeout=20)

    def load(number: int) -> int:
        together.wait()
        return asyncio.run(inner.get_async(number, lambda: number))

    async def main() -> list[int]:
        loads = [outer.get_async(number, functools.partial(load, number)) for number in range(count)]
        return await asyncio.wait_for(asyncio.gather(*loads), 30)

    assert asyncio.run(main()) == list(range(count))


def test_an_older_cache_has_its_name_again_when_the_newer_one_is_gone() -> None:
    """A name is known as long as anything lives under it."""
    older, newer = (Cache("reviewed.name") for _ in range(2))
    assert get_cache("reviewed.name") is newer
    del newer
    gc.collect()
    assert get_cache("reviewed.name") is older


def test_an_expired_entry_that_is_loaded_again_counts_as_expired() -> None:
    """Whether its own key or another one takes its place makes no difference."""
    now = [0.0]
    cache: Cache[str, int] = Cache("reviewed.expired", ttl=1, clock=lambda: now[0])
    for _ in range(10):
        for key in ("a", "b"):
            cache.get(key, lambda: 0)
        now[0] += 2
    assert cache.stats().evictions_expired == 18


def test_lambdas_of_one_module_have_names_of_their_own() -> None:
    """They would share one cache name, and take it over from each other."""
    first: Any = cached(lambda x: x)
    second: Any = cached(lambda x: -x)
    assert first.cache.name != second.cache.name


def test_a_bad_ttl_is_the_same_error_everywhere() -> None:
    """Of the constructor and of each call."""
    with pytest.raises(ConfigurationError, match="ttl=0"):
        Cache("reviewed.ttl", ttl=0)
    with pytest.raises(ConfigurationError, match="ttl=0"):
        Cache[int, int]("reviewed.ttl").set(1, 1, ttl=0)


def test_a_loader_that_cannot_be_called_is_named() -> None:
    """It is a mistake of the caller, and no failed load."""
    cache: Cache[int, Any] = Cache("reviewed.loader")
    with pytest.raises(TypeError, match="loader=5 must be callable"):
        cache.get(1, 5)  # type: ignore[call-overload]
    assert cache.stats().miss_count == 0


def test_bug_a_recursive_function_ran_out_of_stack_after_fewer_calls() -> None:
    """A hundred calls deep fit into the interpreter's default limit; each frame of ours counts a hundred times."""

    @cached
    def count(number: int) -> int:
        return number and 1 + count(number - 1)

    assert sys.getrecursionlimit() == 1000
    with ThreadPoolExecutor(1) as thread:  # begins with an almost empty stack
        assert thread.submit(count, 100).result() == 100
