"""Tags: entries that are invalidated together, whatever is going on with them, in constant time."""

import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from otel_perfopt import Cache, cached
from otel_perfopt.cache.terms import entry_options
from otel_perfopt.telemetry import instruments, names
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import TIMEOUT, Gate, new_cache, no_collection, passed, results, run, spawn, spawn_many, until_waiting


def test_an_invalidation_takes_along_what_has_the_tag(callers: Callers) -> None:
    """Set or loaded; and nothing else."""
    cache = new_cache()
    cache.set("set", 1, tags=["red"])
    cache.set_many({"many": 2, "more": 3}, tags=["red", "green"])
    callers.get(cache, lambda: 4, key="loaded", tags=["red"])
    cache.set("green", 5, tags=["green"])
    cache.set("none", 6)
    cache.invalidate_tag("red")
    assert [key for key in ("set", "many", "more", "loaded", "green", "none") if key in cache] == ["green", "none"]
    assert [cache.get(key, default="gone") for key in ("set", "loaded", "green")] == ["gone", "gone", 5]
    assert callers.get(cache, lambda: "new", key="set") == "new"


def test_the_asynchronous_twins() -> None:
    """They do the same."""

    async def main() -> None:
        cache = new_cache()
        await cache.set_async("one", 1, tags=["red"])
        await cache.set_many_async({"two": 2}, tags=["red"])
        await cache.get_async("three", lambda: 3, tags=["red"])
        await cache.invalidate_tag_async("red")
        assert [await cache.get_async(key) for key in ("one", "two", "three")] == [None] * 3
        await cache.set_async("one", 1)
        await cache.clear_async()
        assert "one" not in cache

    run(main())


def test_what_comes_afterwards_is_kept(callers: Callers) -> None:
    """With the same tag; until the next invalidation."""
    cache = new_cache()
    for _ in range(3):
        cache.invalidate_tag("red")
        assert callers.get(cache, lambda: "new", tags=["red"]) == "new"
        assert "key" in cache


def test_a_tag_that_nobody_has(callers: Callers) -> None:
    """Nothing happens, and it is counted."""
    cache = new_cache()
    cache.set("key", "value", tags=["green"])
    cache.invalidate_tag("red")
    assert callers.get(cache, lambda: "new") == "value"


def test_a_new_value_does_not_have_the_tags_of_the_old_one(callers: Callers) -> None:
    """It has those that it is given."""
    cache = new_cache()
    cache.set("key", "old", tags=["red"])
    cache.set("key", "new", tags=["green"])
    cache.invalidate_tag("red")
    assert callers.get(cache, lambda: "wrong") == "new"
    cache.invalidate_tag("green")
    assert "key" not in cache


def test_an_invalid_entry_has_not_been_there() -> None:
    """For `delete`, `expire` and look-ups."""
    cache = new_cache(stale_for=60)
    for forget in (cache.delete, cache.expire):
        cache.set("key", "old", tags=["red"])
        cache.invalidate_tag("red")
        assert not forget("key")
    assert cache.get("key", default="nothing") == "nothing"


# --- loads in flight -----------------------------------------------------------------------------------


def test_a_load_that_began_before_is_not_kept(callers: Callers, others: Callers) -> None:
    """Those who came before get its value; those who come after load anew, at once."""
    cache, gate = new_cache(), Gate("outdated")
    before = [callers.ask(cache, gate, tags=["red"])]
    passed(gate.entered)
    before.append(others.ask(cache, gate))
    until_waiting(cache, 1)
    cache.invalidate_tag("red")
    assert others.get(cache, lambda: "new", tags=["red"]) == "new"
    assert cache.stats().loads_in_flight == 1
    gate.opened.set()
    assert results(before) == ["outdated"] * 2
    assert cache.get("key") == "new"


def test_a_load_without_the_tag_goes_on(callers: Callers, others: Callers) -> None:
    """It is joined and kept."""
    cache, gate = new_cache(), Gate("value")
    asked = [callers.ask(cache, gate, tags=["green"])]
    passed(gate.entered)
    cache.invalidate_tag("red")
    asked.append(others.ask(cache, Source("wrong")))
    until_waiting(cache, 1)
    gate.opened.set()
    assert results(asked) == ["value"] * 2
    assert cache.get("key") == "value"


def test_a_loader_that_invalidates_its_own_tag(callers: Callers) -> None:
    """Its value is returned, and not kept."""
    cache = new_cache()

    def load() -> str:
        cache.invalidate_tag("red")
        return "value"

    assert callers.get(cache, load, tags=["red"]) == "value"
    assert "key" not in cache


def test_a_set_during_a_load_with_a_tag(callers: Callers) -> None:
    """What was set has tags of its own."""
    cache, gate = new_cache(), Gate("outdated")
    asked = callers.ask(cache, gate, tags=["red"])
    passed(gate.entered)
    cache.set("key", "set", tags=["green"])
    cache.invalidate_tag("red")
    gate.opened.set()
    assert asked.result(TIMEOUT) == "outdated"
    assert cache.get("key") == "set"


# --- failures, fail-safe ----------------------------------------------------------------------------------


def test_a_remembered_failure_goes_with_its_tags(callers: Callers, clock: Clock) -> None:
    """What made it fail may have been changed."""
    cache, source = new_cache(error_ttl=None, clock=clock), Source(ConnectionError())
    for _ in range(2):
        callers.error(cache, source, tags=["red"])
    assert source.calls == 1
    cache.invalidate_tag("green")
    assert callers.error(cache, source) is source.outcome
    cache.invalidate_tag("red")
    source.outcome = "new"
    assert callers.get(cache, source) == "new"


def test_the_pause_goes_with_the_tags_of_the_failed_load(callers: Callers, clock: Clock) -> None:
    """The stale value has other tags, and stays."""
    cache, source = new_cache(ttl=60, stale_for=3600, clock=clock), Source(ConnectionError())
    cache.set("key", "old", tags=["green"])
    clock.advance(61)
    assert callers.get(cache, source, tags=["red"]) == "old"
    cache.invalidate_tag("red")
    assert callers.get(cache, source) == "old"
    assert source.calls == 2


# --- decorated functions ------------------------------------------------------------------------------------


def test_a_decorated_function_with_tags() -> None:
    """The same for all calls, or made from the arguments, as the function binds them."""

    @cached(tags=["prices"])
    def fixed(article: str) -> str:
        return article

    @cached(tags=lambda article, currency="EUR": [f"article:{article}", currency])
    def made(article: str, currency: str = "EUR") -> str:
        return article + currency

    fixed("tea")
    fixed.cache.invalidate_tag("prices")
    assert not fixed.invalidate("tea")

    for keywords in ({}, {"currency": "EUR"}):
        for tag in ("article:tea", "EUR"):
            made("tea", **keywords)
            made("fish", "USD")
            made.cache.invalidate_tag(tag)
            assert (made.invalidate("tea"), made.invalidate("fish", "USD")) == (False, True)


def test_a_decorated_coroutine_function_with_tags() -> None:
    """The same."""

    @cached(tags=lambda number: [f"user:{number}"])
    async def user(number: int) -> int:
        return number

    async def main() -> None:
        assert [await user(1), await user(2)] == [1, 2]
        user.cache.invalidate_tag("user:1")
        assert [user.invalidate(1), user.invalidate(2)] == [False, True]

    run(main())


def test_a_decorated_method_with_tags() -> None:
    """The function of the arguments gets the instance, too."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @cached(tags=lambda self, article: [f"shop:{self.name}", f"article:{article}"])
        def price(self, article: str) -> str:
            return self.name + article

    one, two = Shop("one"), Shop("two")
    for tag, left in (("shop:one", [False, True]), ("article:tea", [False, False]), ("nothing", [True, True])):
        one.price("tea")
        two.price("tea")
        Shop.price.cache.invalidate_tag(tag)
        assert [Shop.price.invalidate(shop, "tea") for shop in (one, two)] == left


def test_entries_with_tags_go_with_their_instance() -> None:
    """By reference counts alone."""

    class Value:
        pass

    class Shop:
        @cached(tags=["prices"])
        def price(self, _: str) -> Value:
            return Value()

    with no_collection():
        shop = Shop()
        value = weakref.ref(shop.price("tea"))
        reference = weakref.ref(shop)
        del shop
        assert reference() is None
        Shop().price("fish")  # whoever changes the cache next sweeps
        assert value() is None


def test_a_function_of_tags_that_fails_or_returns_nonsense() -> None:
    """Its callers are told; the function itself is not called."""
    called = []

    @cached(tags=lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
    def broken(number: int) -> int:
        called.append(number)
        return number

    @cached(tags=lambda _: "letters")
    def letters(number: int) -> int:
        called.append(number)
        return number

    with pytest.raises(ZeroDivisionError):
        broken(1)
    with pytest.raises(TypeError, match="tags='letters' must be strings"):
        letters(1)
    assert called == []


BAD_TAGS: list[Any] = ["user", b"user", [1], [None], None, 5]


@pytest.mark.parametrize("tags", BAD_TAGS)
def test_bad_tags_are_refused_everywhere(tags: Any) -> None:
    """With the value and what to write instead."""
    cache = new_cache()
    calls: list[Callable[[], Any]] = [
        lambda: cache.set("key", 1, tags=tags),
        lambda: cache.set_many({"key": 1}, tags=tags),
        lambda: cache.get("key", lambda: 1, tags=tags),
        lambda: run(cache.get_async("key", lambda: 1, tags=tags)),
        lambda: cached(tags=tags)(lambda: 1),
        lambda: cache.invalidate_tag(tags) if not isinstance(tags, str) else cache.set("key", 1, tags=tags),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"tags=.* must be strings, such as tags=\['user:7'\]"):
            call()
    assert len(cache) == 0


# --- many, and for long ---------------------------------------------------------------------------------------


def steps(function: Callable[[], Any]) -> int:
    """How many lines of Python, and calls of C, a call takes."""
    count = 0

    def line(*_: Any) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(line)
    try:
        function()
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return count


def filled(entries: int) -> Any:
    """Make a cache with so many entries of one tag."""
    cache = new_cache(max_size=None)
    for number in range(entries):
        cache.set(number, number, tags=["red"])
    return cache


def test_it_takes_as_many_steps_for_ten_entries_as_for_many() -> None:
    """And so does what comes after it."""
    few, many = filled(10), filled(20_000)
    with no_collection():
        acts: list[Callable[[Any], Any]] = [
            lambda cache: cache.invalidate_tag("red"),
            lambda cache: cache.get(0),
            lambda cache: cache.set(0, 0, tags=["red"]),
            lambda cache: cache.invalidate_tag("unknown"),
        ]
        for act in acts:
            assert steps(partial(act, few)) == steps(partial(act, many))
    assert [few.get(1), many.get(1)] == [None, None]


def test_an_entry_with_many_tags(callers: Callers) -> None:
    """Each of them counts."""
    cache = new_cache()
    tags = [f"tag:{number}" for number in range(100)]
    for tag in tags[::20]:
        callers.get(cache, lambda: "value", tags=tags)
        assert "key" in cache
        cache.invalidate_tag(tag)
        assert "key" not in cache


def test_tags_do_not_pile_up(clock: Clock) -> None:
    """A tag is forgotten with the last entry that has it, however that goes."""
    cache = new_cache(max_size=5, error_ttl=10, clock=clock)
    with no_collection():
        for number in range(200):
            cache.set(number, number, tags=[f"set:{number}"])
            cache.get(number + 1000, lambda: 1, tags=[f"loaded:{number}"])
        assert len(cache._tags._known) == 5
        cache.clear()
        assert len(cache._tags._known) == 0


def test_invalid_entries_make_room_like_others() -> None:
    """They are dropped when their key is stored again, and when room is needed."""

    class Value:
        pass

    cache: Any = new_cache(max_size=3, policy="lru")
    with no_collection():
        for key in ("a", "b", "c"):
            cache.set(key, Value(), tags=["red"])
        references = [weakref.ref(cache.get(key)) for key in ("a", "b", "c")]
        cache.invalidate_tag("red")
        cache.get("a", lambda: "new")
        assert references[0]() is None
        for number in range(10):
            cache.set(number, number)
        assert [reference() for reference in references] == [None] * 3


def test_the_count_is_a_metric(request: pytest.FixtureRequest) -> None:
    """Of invalidations that were asked for, each once."""
    name = request.node.nodeid
    cache: Cache[str, int] = Cache(name)
    cache.set("key", 1, tags=["red"])
    for tag in ("red", "red", "unknown"):
        cache.invalidate_tag(tag)
    cache.clear()
    counted = {
        reading.attributes[names.INVALIDATION_REASON]: reading.value
        for reading in instruments.observe(names.CACHE_INVALIDATIONS)
        if name in reading.attributes.values() and reading.value
    }
    assert counted == {"tag": 3, "clear": 1}


# --- bugs -----------------------------------------------------------------------------------------------------


def test_bug_two_threads_made_two_of_one_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an invalidation reached the entries of only one of them."""
    cache: Any = new_cache()
    known = cache._tags._known
    entered, opened = threading.Event(), threading.Event()

    class Slow:
        """The known tags, for a thread that is interrupted between looking and adding."""

        def get(self, name: str) -> Any:
            found = known.get(name)
            if not entered.is_set():
                entered.set()
                opened.wait(0.2)  # as long as it takes others, if they can; they wait for the lock
            return found

        def __setitem__(self, name: str, tag: Any) -> None:
            known[name] = tag

    monkeypatch.setattr(cache._tags, "_known", Slow())
    first = spawn(lambda: cache.set("first", 1, tags=["red"]))
    passed(entered)
    second = spawn(lambda: cache.set("second", 2, tags=["red"]))
    second.add_done_callback(lambda _: opened.set())
    results([first, second])
    cache.invalidate_tag("red")
    assert [cache.get("first"), cache.get("second")] == [None, None]


def test_bug_a_set_that_an_invalidation_overtook_left_the_value_before_it() -> None:
    """It is as if it had been set and then invalidated: what it replaced is not back."""

    def weigh(_: str, value: str) -> float:
        if value == "new":
            cache.invalidate_tag("red")
        return 1.0

    cache: Cache[str, str] = Cache("overtaken", max_weight=100, weigher=weigh)
    cache.set("key", "old")
    cache.set("key", "new", tags=["red"])
    assert cache.get("key", default="nothing") == "nothing"
    assert cache.get("key", lambda: "loaded") == "loaded"


def test_many_threads_tag_and_invalidate_at_once() -> None:
    """Nobody finds, after an invalidation has returned, what was read before it began."""
    cache, versions, floors, lock = new_cache(), [0, 0, 0], [0, 0, 0], threading.Lock()

    def change(number: int) -> None:
        with lock:
            versions[number] += 1
            version = versions[number]
        cache.invalidate_tag(f"tag:{number}")
        with lock:
            floors[number] = max(floors[number], version)

    def load(number: int) -> int:
        version = versions[number]
        entry_options(tags=[f"tag:{number}"])
        return version

    def work() -> list[tuple[int, int]]:
        wrong = []
        for step in range(400):
            number = step % 3
            if step % 7 == 0:
                change(number)
            floor = floors[number]
            if step % 5 == 0:
                found = cache.get(number, lambda number=number: load(number))
            else:
                found = cache.get(number, lambda number=number: versions[number], tags=[f"tag:{number}"])
            if found < floor:
                wrong.append((floor, found))
        return wrong

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert results(spawn_many(6, work)) == [[]] * 6
    finally:
        sys.setswitchinterval(before)
