"""What a loader says of its own entry: how long it is fresh, and which tags it has."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import Cache, ConfigurationError, cached
from otel_perfopt.cache.terms import entry_options
from otel_perfopt.testing import ManualClock
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import TIMEOUT, Gate, new_cache, passed, results, run, spawn, until_waiting, until_waiting_async


def saying(value: object = "value", **options: Any) -> Callable[[], Any]:
    """Return a loader that says so and returns a value, or raises it."""

    def load() -> Any:
        entry_options(**options)
        if isinstance(value, BaseException):
            raise value
        return value

    return load


def test_the_time(callers: Callers, clock: Clock) -> None:
    """It overrides that of the caller and of the cache; None is for ever."""
    cache = new_cache(ttl=100, clock=clock)
    callers.get(cache, saying(ttl=5), key="short", ttl=50)
    callers.get(cache, saying(ttl=None), key="long")
    callers.get(cache, saying(tags=["tag"]), key="own", ttl=50)
    clock.advance(4.9)
    assert "short" in cache
    clock.advance(0.1)
    assert ("short" in cache, "own" in cache) == (False, True)
    clock.advance(45)
    assert "own" not in cache
    clock.advance("365d")
    assert "long" in cache


def test_the_last_word_on_the_time_counts(callers: Callers, clock: Clock) -> None:
    """And a call without a time says nothing about it."""

    def load() -> str:
        entry_options(ttl=5)
        entry_options(ttl=10)
        entry_options(tags=["a"])
        return "value"

    cache = new_cache(clock=clock)
    callers.get(cache, load)
    clock.advance(9)
    assert "key" in cache
    clock.advance(1)
    assert "key" not in cache


@pytest.mark.parametrize("tag", ["given", "said", "more", "generated"])
def test_the_tags_come_beside_those_of_the_caller(tag: str, callers: Callers) -> None:
    """Each of them invalidates the entry."""

    def load() -> str:
        entry_options(tags=["said", "said"])
        entry_options(tags=["more"])
        entry_options(tags=(name for name in ["generated"]))
        return "value"

    cache = new_cache()
    callers.get(cache, load, tags=["given"])
    cache.invalidate_tag("another")
    assert "key" in cache
    cache.invalidate_tag(tag)
    assert "key" not in cache


def test_in_a_coroutine_and_after_it_has_waited() -> None:
    """In whatever step of it."""

    async def load() -> str:
        await asyncio.sleep(0)
        entry_options(tags=["late"])
        await asyncio.to_thread(entry_options, tags=["thread"])
        return "value"

    for tag in ("late", "thread"):
        cache = new_cache()
        run(cache.get_async("key", load))
        cache.invalidate_tag(tag)
        assert "key" not in cache


def test_with_a_timeout(clock: Clock, callers: Callers) -> None:
    """The load runs somewhere else, and means the same entry."""
    cache = new_cache(hard_timeout=5, clock=clock)
    callers.get(cache, saying(ttl=1, tags=["tag"]))
    clock.advance(1)
    assert "key" not in cache


def test_of_a_nested_load_it_is_the_inner_entry(callers: Callers, clock: Clock) -> None:
    """What comes after the inner load is about the outer one again."""
    cache, inner = new_cache(clock=clock), new_cache("inner", clock=clock)

    def load() -> Any:
        inner.get("key", saying(tags=["inner"], ttl=5))
        entry_options(tags=["outer"])
        return "outer"

    callers.get(cache, load)
    clock.advance(5)
    assert "key" in cache
    assert "key" not in inner
    cache.invalidate_tag("inner")
    assert "key" in cache
    cache.invalidate_tag("outer")
    assert "key" not in cache


def test_elsewhere_it_has_no_effect() -> None:
    """A function that is called with and without a cache works in both ways."""
    entry_options(ttl=5, tags=["tag"])
    cache = new_cache()
    cache.get("key", lambda: "value")
    entry_options(ttl=5, tags=["tag"])
    cache.invalidate_tag("tag")
    assert "key" in cache


def test_in_a_thread_without_the_context_it_has_no_effect() -> None:
    """A thread begins with an empty context."""
    cache = new_cache()

    def load() -> str:
        thread = threading.Thread(target=entry_options, kwargs={"tags": ["tag"]})
        thread.start()
        thread.join(TIMEOUT)
        return "value"

    cache.get("key", load)
    cache.invalidate_tag("tag")
    assert "key" in cache


def test_in_a_task_that_outlives_its_load_it_has_no_effect() -> None:
    """The entry is made."""

    async def main() -> None:
        cache, go, tasks = new_cache(), asyncio.Event(), list[Any]()

        async def late() -> None:
            await go.wait()
            entry_options(tags=["late"])

        async def load() -> str:
            tasks.append(asyncio.create_task(late()))
            return "value"

        await cache.get_async("key", load)
        go.set()
        await tasks[0]
        cache.invalidate_tag("late")
        assert "key" in cache

    run(main())


@pytest.mark.parametrize("keywords", [{"ttl": 0}, {"ttl": -1}, {"ttl": "soon"}, {"ttl": []}])
def test_a_bad_time_is_an_error_of_the_load(keywords: dict[str, Any], callers: Callers) -> None:
    """Its caller is told, and nothing is kept."""
    cache = new_cache()
    error = callers.error(cache, saying(**keywords))
    assert isinstance(error, ConfigurationError)
    assert "ttl" in str(error)
    assert len(cache) == 0


@pytest.mark.parametrize("tags", ["user", b"user", [1], None, 5])
def test_bad_tags_are_an_error(tags: Any) -> None:
    """One string is taken for a mistake, because its letters would be tags."""
    with pytest.raises(TypeError, match=r"tags=.* must be strings, such as tags=\['user:7'\]"):
        entry_options(tags=tags)


def test_a_decorated_function_and_method() -> None:
    """From inside their bodies."""
    clock = ManualClock()

    @cached(ttl=None, clock=clock)
    def price(article: str) -> str:
        entry_options(ttl=5 if article == "fish" else 100, tags=[f"article:{article}"])
        return article

    class Shop:
        @cached(ttl=None, clock=clock)
        def price(self, article: str) -> str:
            entry_options(tags=[f"article:{article}"])
            return article

    shop = Shop()
    for call in (price, shop.price):
        assert [call(article) for article in ("fish", "tea")] == ["fish", "tea"]
    assert len(price.cache) == len(Shop.price.cache) == 2
    clock.advance(5)
    assert [price.invalidate(article) for article in ("fish", "tea")] == [False, True]
    Shop.price.cache.invalidate_tag("article:tea")
    assert [Shop.price.invalidate(shop, article) for article in ("fish", "tea")] == [True, False]


# --- tags that nobody knew when the load began ------------------------------------------------------------


def late_tags(gate: Gate) -> Callable[[], Any]:
    """Return a loader that says which tag it has when it is almost done."""

    def load() -> Any:
        value = gate()
        entry_options(tags=["late"])
        return value

    return load


def test_a_tag_that_was_invalidated_before_the_loader_came_up_with_it(callers: Callers) -> None:
    """The value was read before the invalidation; it goes to who asked before, and is not kept."""
    cache, gate = new_cache(), Gate("outdated")
    asked = callers.ask(
        cache, gate if callers.kind == "loop" else late_tags(gate), tags=["late"] if callers.kind == "loop" else []
    )
    passed(gate.entered)
    cache.invalidate_tag("late")
    gate.opened.set()
    assert asked.result(TIMEOUT) == "outdated"
    assert "key" not in cache
    assert callers.get(cache, lambda: "new") == "new"


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_who_came_after_the_invalidation_does_not_get_the_value(known: bool) -> None:
    """Although they joined, because nobody could know; those who came before get it."""
    cache, gate = new_cache(), Gate("outdated")
    if known:
        cache.set("other", "value", tags=["late"])
    before = [spawn(cache.get, "key", late_tags(gate))]
    passed(gate.entered)
    before.append(spawn(cache.get, "key", Source("wrong")))
    until_waiting(cache, 1)
    cache.invalidate_tag("late")
    source = Source("new")
    after = [spawn(cache.get, "key", source) for _ in range(3)]
    until_waiting(cache, 4)
    gate.opened.set()
    assert results(before) == ["outdated"] * 2
    assert results(after) == ["new"] * 3
    assert source.calls == 1
    assert cache.get("key") == "new"


def test_who_came_after_the_invalidation_does_not_get_the_value_on_a_loop() -> None:
    """The same for coroutines, and for coroutines that wait for a thread."""

    async def main() -> None:
        cache, opened, entered = new_cache(), asyncio.Event(), asyncio.Event()

        async def load() -> str:
            entered.set()
            await opened.wait()
            entry_options(tags=["late"])
            return "outdated"

        async def new() -> str:
            return "new"

        before = asyncio.create_task(cache.get_async("key", load))
        await entered.wait()
        cache.invalidate_tag("late")
        after = [asyncio.create_task(cache.get_async("key", loader)) for loader in (new, lambda: "new")]
        await until_waiting_async(cache, 2)
        opened.set()
        assert await before == "outdated"
        assert await asyncio.gather(*after) == ["new", "new"]
        assert cache.get("key") == "new"

    run(main())


def test_a_failure_with_late_tags_is_not_for_those_who_came_after() -> None:
    """It may have failed for what was changed since."""
    cache, gate = new_cache(error_ttl=None), Gate()

    def load() -> None:
        gate()
        entry_options(tags=["late"])
        raise ConnectionError

    before = spawn(cache.get, "key", load)
    passed(gate.entered)
    cache.invalidate_tag("late")
    after = spawn(cache.get, "key", lambda: "new")
    until_waiting(cache, 1)
    gate.opened.set()
    assert isinstance(before.exception(TIMEOUT), ConnectionError)
    assert after.result(TIMEOUT) == "new"


def test_a_failure_is_forgotten_with_its_late_tags(callers: Callers) -> None:
    """A loader that fails after it has said its tags."""
    cache: Cache[str, str] = new_cache(error_ttl=None)
    assert isinstance(callers.error(cache, saying(ConnectionError(), tags=["late"])), ConnectionError)
    assert isinstance(callers.error(cache, lambda: "new"), ConnectionError)
    cache.invalidate_tag("late")
    assert callers.get(cache, lambda: "new") == "new"


def test_an_invalidation_of_a_known_tag_is_no_matter_for_others() -> None:
    """A load is only suspected if its own tag was invalidated."""
    cache, gate = new_cache(), Gate("value")
    cache.set("first", 1, tags=["late"])
    cache.set("second", 2, tags=["other"])
    asked = spawn(cache.get, "key", late_tags(gate))
    passed(gate.entered)
    cache.invalidate_tag("other")
    gate.opened.set()
    assert asked.result(TIMEOUT) == "value"
    assert "key" in cache


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_bug_a_second_invalidation_made_the_first_one_forgotten(known: bool) -> None:
    """Who came between the two had joined a load that began before both, and got its value."""
    cache, gate = new_cache(), Gate("outdated")
    if known:
        cache.set("other", "value", tags=["late"])
    before = spawn(cache.get, "key", late_tags(gate))
    passed(gate.entered)
    cache.invalidate_tag("late")
    between = spawn(cache.get, "key", lambda: "new")
    until_waiting(cache, 1)
    cache.invalidate_tag("late")
    gate.opened.set()
    assert before.result(TIMEOUT) == "outdated"
    assert between.result(TIMEOUT) == "new"
