"""Who keeps whom: nothing stays longer than somebody can reach it."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import cached, get_cache
from tests.cache.support import new_cache, no_collection, run


class Value:
    """Something that can be referred to weakly."""


def fill(cache: Any) -> weakref.ref[Value]:
    """Put a value in, and return a reference to it."""
    value = Value()
    cache.set("key", value)
    cache.get("key")
    return weakref.ref(value)


def fail(cache: Any) -> None:
    """Have a load fail, in a thread and on a loop."""
    with pytest.raises(ZeroDivisionError):
        cache.get("bad", lambda: 1 // 0)

    async def caught(loader: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await cache.get_async("bad", loader)

    for loader in (lambda: 1 // 0, divide):
        run(caught(loader))


async def divide() -> int:
    """Be a coroutine function that fails."""
    return 1 // 0


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("use", [fill, fail, lambda cache: cache.get("key", Value)])
def test_a_dropped_cache_is_gone_at_once(policy: str, use: Callable[[Any], Any]) -> None:
    """By reference counts alone, with all its values, also after loads that failed."""
    with no_collection():
        cache = new_cache(policy=policy)
        use(cache)
        value = fill(cache)
        reference = weakref.ref(cache)
        del cache
        assert reference() is None
        assert value() is None


LEAVING: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
    "set": lambda cache: cache.set("key", None),
    "evict": lambda cache: [cache.set(number, None) for number in range(3)],
}


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("how", LEAVING)
def test_a_value_that_leaves_is_gone_at_once(how: str, policy: str) -> None:
    """The same for single values."""
    with no_collection():
        cache = new_cache(max_size=2, policy=policy)
        value = fill(cache)
        LEAVING[how](cache)
        assert value() is None


def test_a_load_leaves_nothing_in_the_contexts_that_it_made() -> None:
    """A task that a loader started and that lives on keeps neither the value nor the load."""

    async def main() -> None:
        cache, tasks = new_cache(), list[Any]()

        async def load() -> Value:
            tasks.append(asyncio.create_task(asyncio.Event().wait()))
            return Value()

        value = weakref.ref(await cache.get_async("key", load))
        await asyncio.sleep(0)
        cache.delete("key")
        assert value() is None
        tasks[0].cancel()

    with no_collection():
        run(main())


def test_a_background_task_of_a_loader_may_use_its_key_later() -> None:
    """Its context comes from a load that has ended; it is not taken for a part of a new one."""

    async def main() -> None:
        cache, go, seen = new_cache(), asyncio.Event(), list[Any]()

        async def background() -> None:
            await go.wait()
            seen.append(await cache.get_async("key", lambda: "second"))

        async def load() -> str:
            seen.append(asyncio.create_task(background()))
            return "first"

        assert await cache.get_async("key", load) == "first"
        cache.delete("key")
        go.set()
        await seen[0]
        assert seen[1] == "second"

    run(main())


def test_a_cached_function_made_in_a_function_can_be_collected() -> None:
    """With its cache, and what it closes over."""

    def make() -> tuple[weakref.ref[Any], ...]:
        closed_over = Value()

        @cached
        def inner(number: int) -> tuple[int, Value]:
            return number, closed_over

        inner(1)
        cache: Any = inner.cache
        return weakref.ref(inner), weakref.ref(closed_over), weakref.ref(cache)

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_the_registry_keeps_nothing_alive() -> None:
    """A cache can be found by its name as long as somebody has it."""
    with no_collection():
        cache = new_cache("found by name")
        assert get_cache("found by name") is cache
        del cache
        with pytest.raises(LookupError, match="found by name"):
            get_cache("found by name")


def test_counts_outlive_their_cache() -> None:
    """They belong to the name, and never go backwards."""
    from otel_perfopt.telemetry import instruments, names

    def hits() -> float:
        return sum(
            reading.value
            for reading in instruments.observe(names.CACHE_REQUESTS)
            if reading.attributes.get(names.CACHE_NAME) == "outlived" and reading.attributes[names.CACHE_RESULT] == "hit"
        )

    for round_ in (1, 2):
        cache = new_cache("outlived")
        cache.set("key", 1)
        for _ in range(10):
            cache.get("key")
        del cache
        gc.collect()
        assert hits() == 10 * round_
