"""What happens to a load when its key is invalidated meanwhile: those before get the value, those after load anew."""

from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import cached
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, Gate, new_cache, passed, results, spawn, spawn_many, until, until_waiting

INVALIDATIONS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_a_load_that_an_invalidation_overtook_stores_nothing(how: str) -> None:
    """The old value goes to those who asked before, and is not kept."""
    cache, old = new_cache(), Gate("old")
    before = spawn_many(3, lambda: cache.get("key", old))
    until_waiting(cache, 2)
    INVALIDATIONS[how](cache)
    old.opened.set()
    assert results(before) == ["old"] * 3
    assert "key" not in cache
    assert cache.get("key", lambda: "new") == "new"


@pytest.mark.parametrize("how", INVALIDATIONS)
@pytest.mark.parametrize("first", ["old", "new"])
def test_callers_after_an_invalidation_start_a_new_load(how: str, first: str) -> None:
    """They do not join the old load, and whichever ends first, the new value stays."""
    cache, old, new = new_cache(), Gate("old"), Gate("new")
    before = spawn_many(3, lambda: cache.get("key", old))
    until_waiting(cache, 2)
    INVALIDATIONS[how](cache)
    after = spawn_many(3, lambda: cache.get("key", new))
    until_waiting(cache, 4)
    assert cache.stats().loads_in_flight == 2
    for gate, callers in sorted([(old, before), (new, after)], key=lambda pair: pair[0].outcome != first):
        gate.opened.set()
        assert results(callers) == [gate.outcome] * 3
    assert cache.get("key") == "new"
    assert (old.calls, new.calls) == (1, 1)


def test_a_value_set_during_a_load_stays() -> None:
    """A load does not replace a value that was set after it began."""
    cache, old = new_cache(), Gate("old")
    before = spawn(cache.get, "key", old)
    passed(old.entered)
    cache.set("key", "set")
    assert cache.get("key", old) == "set"
    old.opened.set()
    assert before.result(TIMEOUT) == "old"
    assert cache.get("key") == "set"


def test_other_keys_are_not_concerned() -> None:
    """Deleting one key leaves the load of another alone."""
    cache, gate = new_cache(), Gate()
    future = spawn(cache.get, "key", gate)
    passed(gate.entered)
    cache.delete("other")
    gate.opened.set()
    assert future.result(TIMEOUT) == "value"
    assert "key" in cache


def test_a_loader_may_invalidate_its_own_key() -> None:
    """Then its value is returned and not kept."""
    cache = new_cache()

    def load() -> str:
        cache.delete("key")
        return "loaded"

    assert cache.get("key", load) == "loaded"
    assert "key" not in cache


def test_a_loader_may_set_its_own_key() -> None:
    """Then its caller gets what it returned, and the cache keeps what it set."""
    cache = new_cache()

    def load() -> str:
        cache.set("key", "set")
        return "returned"

    assert cache.get("key", load) == "returned"
    assert cache.get("key") == "set"


def test_delete_tells_whether_there_was_something() -> None:
    """True for a fresh entry, False for none and for one that has expired."""
    clock = ManualClock()
    cache = new_cache(ttl=10, clock=clock)
    cache.set("key", 1)
    assert [cache.delete("key"), cache.delete("key")] == [True, False]
    cache.set("key", 1)
    clock.advance(10)
    assert cache.delete("key") is False


def test_expire_makes_a_value_stale_but_forbids_nothing() -> None:
    """An expired value is loaded again; a load that began before may store its value."""
    cache = new_cache()
    cache.set("key", "old")
    assert [cache.expire("key"), cache.expire("key")] == [True, False]
    assert cache.get("key") is None
    gate = Gate("loaded")
    future = spawn(cache.get, "key", gate)
    passed(gate.entered)
    assert cache.expire("key") is False
    gate.opened.set()
    assert future.result(TIMEOUT) == "loaded"
    assert cache.get("key") == "loaded"


def test_invalidate_of_a_function_does_the_same_as_delete() -> None:
    """A call of a cached function that began before `invalidate` leaves nothing behind."""
    gates = iter([Gate("old"), Gate("new")])
    begun: list[Gate] = []

    @cached
    def work(number: int) -> Any:
        begun.append(next(gates))
        return begun[-1]()

    old = spawn(work, 1)
    until(lambda: len(begun) == 1)
    assert work.invalidate(number=1) is False
    new = spawn(work, 1)
    until(lambda: len(begun) == 2)
    for gate in begun:
        gate.opened.set()
    assert (old.result(TIMEOUT), new.result(TIMEOUT), work(1)) == ("old", "new", "new")


def test_delete_joins_nobody_to_an_abandoned_retry() -> None:
    """Followers of a leader that was interrupted load anew after an invalidation, too."""
    cache, old = new_cache(), Gate(KeyboardInterrupt())
    leader = spawn(cache.get, "key", old)
    passed(old.entered)
    follower = spawn(cache.get, "key", lambda: "retried")
    until_waiting(cache, 1)
    cache.delete("key")
    old.opened.set()
    assert isinstance(leader.exception(TIMEOUT), KeyboardInterrupt)
    assert follower.result(TIMEOUT) == "retried"
    assert cache.get("key") == "retried"


def test_async_twins_do_the_same() -> None:
    """set_async, set_many_async, delete_async, expire_async and clear_async."""
    from tests.cache.support import run

    async def main() -> None:
        cache = new_cache()
        await cache.set_async("a", 1, ttl=5)
        await cache.set_many_async({"b": 2, "c": 3})
        assert [await cache.get_async(key) for key in "abc"] == [1, 2, 3]
        assert await cache.delete_async("a")
        assert await cache.expire_async("b")
        assert [key in cache for key in "abc"] == [False, False, True]
        await cache.clear_async()
        assert len(cache) == 0

    run(main())
