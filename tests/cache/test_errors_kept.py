"""Remembered errors: a load that failed is not tried again for `error_ttl`, and its error is raised as it was."""

import gc
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from otel_perfopt import LoadTimeout, cached
from otel_perfopt.cache.failures import MAX_FAILURES
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import TIMEOUT, Gate, errors, new_cache, no_collection, passed, results, spawn, spawn_many, until
from tests.sync.test_fork import PRELUDE, run_script


def frames(error: object) -> list[str]:
    """The functions that the traceback of an error shows."""
    assert isinstance(error, BaseException)
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]


def test_an_error_is_raised_again_for_a_while(callers: Callers, clock: Clock) -> None:
    """The same object; then the next caller tries."""
    cache, source = new_cache(error_ttl=30, clock=clock), Source(ConnectionError("down"))
    seen = [callers.error(cache, source) for _ in range(3)]
    assert seen == [source.outcome] * 3
    assert source.calls == 1
    clock.advance(29.9)
    assert callers.error(cache, source) is source.outcome
    assert source.calls == 1
    clock.advance(0.1)
    source.outcome = "new"
    assert callers.get(cache, source) == "new"
    assert (source.calls, cache.stats().miss_count) == (2, 5)


def test_its_traceback_does_not_grow(callers: Callers, clock: Clock) -> None:
    """It shows where the load failed, and how the present caller came to it."""
    cache = new_cache(error_ttl=30, clock=clock)
    loader = Source(ConnectionError("down"))
    lengths = []
    for _ in range(5):
        error = callers.error(cache, loader)
        assert error is loader.outcome
        assert frames(error)[-1] == "__call__"  # of the loader, which ran once
        lengths.append(len(frames(error)))
    assert len(set(lengths[1:])) == 1
    assert loader.calls == 1


def test_threads_that_get_one_error_at_once(clock: Clock) -> None:
    """Its traceback is theirs together, and has an end."""
    cache, source = new_cache(error_ttl=30, clock=clock), Source(ConnectionError("down"))
    for _ in range(5):
        assert set(errors(spawn_many(8, lambda: cache.get("key", source)))) == {source.outcome}
    assert len(frames(source.outcome)) < 60
    assert source.calls == 1


def test_by_default_no_error_is_kept(callers: Callers, clock: Clock) -> None:
    """The next call tries again."""
    cache, source = new_cache(clock=clock), Source(ConnectionError())
    for _ in range(3):
        callers.error(cache, source)
    assert source.calls == 3


INVALIDATIONS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "expire": lambda cache: cache.expire("key"),
    "clear": lambda cache: cache.clear(),
    "tag": lambda cache: cache.invalidate_tag("tag"),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_none_keeps_it_until_it_is_invalidated(how: str, callers: Callers, clock: Clock) -> None:
    """However that is done; there was no entry, so `delete` and `expire` say False."""
    cache, source = new_cache(error_ttl=None, clock=clock), Source(ConnectionError())
    callers.error(cache, source, tags=["tag"])
    clock.advance("365d")
    assert callers.error(cache, source) is source.outcome
    assert source.calls == 1
    assert not INVALIDATIONS[how](cache)
    source.outcome = "new"
    assert callers.get(cache, source) == "new"


def test_a_set_ends_it(callers: Callers, clock: Clock) -> None:
    """There is a value then, and when it expires the error is not back."""
    cache, source = new_cache(ttl=10, error_ttl=None, clock=clock), Source(ConnectionError())
    callers.error(cache, source)
    cache.set("key", "set")
    assert callers.get(cache, source) == "set"
    clock.advance(11)
    source.outcome = "new"
    assert callers.get(cache, source) == "new"


@pytest.mark.parametrize("how", [*INVALIDATIONS, "set"])
def test_what_happens_during_a_load_that_fails_wins(how: str, callers: Callers, others: Callers, clock: Clock) -> None:
    """The error goes to those who wait, and is not kept; after an `expire` it is."""
    cache, gate = new_cache(error_ttl=None, clock=clock), Gate(ConnectionError())
    asked = callers.ask(cache, gate, tags=["tag"])
    passed(gate.entered)
    INVALIDATIONS.get(how, lambda cache: cache.set("key", "new"))(cache)
    gate.opened.set()
    assert asked.exception(TIMEOUT) is gate.outcome
    if how == "expire":
        assert others.error(cache, lambda: "new") is gate.outcome
    else:
        assert others.get(cache, lambda: "new") == "new"


def test_a_look_up_without_a_loader_does_not_raise(clock: Clock) -> None:
    """There is no value, and that is all it asks."""
    cache = new_cache(error_ttl=None, clock=clock)
    spawn(cache.get, "key", Source(ConnectionError())).exception(TIMEOUT)
    assert cache.get("key", default="nothing") == "nothing"
    assert "key" not in cache
    assert len(cache) == 0


def test_a_stale_value_is_better_than_a_kept_error(callers: Callers, clock: Clock) -> None:
    """For as long as there is one; the load is not tried for the longer of both pauses."""
    cache, source = new_cache(ttl=60, stale_for=20, error_ttl=100, clock=clock), Source(ConnectionError())
    cache.set("key", "old")
    clock.advance(61)
    assert callers.get(cache, source) == "old"
    clock.advance(18)
    assert callers.get(cache, source) == "old"
    clock.advance(2)
    assert callers.error(cache, source) is source.outcome
    assert source.calls == 1
    clock.advance(81)
    source.outcome = "new"
    assert callers.get(cache, source) == "new"


def test_exits_are_not_kept(clock: Clock) -> None:
    """They end something else."""
    cache = new_cache(error_ttl=None, clock=clock)
    for exit_ in (SystemExit(), KeyboardInterrupt(), GeneratorExit()):
        assert spawn(cache.get, "key", Source(exit_)).exception(TIMEOUT) is exit_
    assert cache.get("key", lambda: "new") == "new"


def test_mistakes_of_a_caller_are_not_kept(clock: Clock) -> None:
    """Others call it in the right way."""

    async def load() -> str:
        return "new"

    cache = new_cache(error_ttl=None, clock=clock)
    with pytest.raises(TypeError, match="returned an awaitable"):
        cache.get("key", lambda: load())
    assert cache.get("key", lambda: "new") == "new"


def test_a_timeout_is_not_kept(callers: Callers, clock: Clock) -> None:
    """The load goes on, and may bring a value."""
    cache, gate = new_cache(error_ttl=None, hard_timeout=1, clock=clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(1)
    assert isinstance(asked.exception(TIMEOUT), LoadTimeout)
    gate.opened.set()
    until(lambda: cache.stats().loads_in_flight == 0)
    assert callers.get(cache, Source(ConnectionError())) == "new"


def test_the_latest_thousand_are_kept(clock: Clock) -> None:
    """A caller who asks for ever new keys does not fill the memory with errors."""
    cache, source = new_cache(max_size=10, error_ttl=None, clock=clock), Source(ConnectionError())
    count = MAX_FAILURES + 500

    def ask(key: int) -> None:
        with pytest.raises(ConnectionError):
            cache.get(key, source)

    for key in range(count):
        ask(key)
    assert source.calls == count
    for key in range(600, count):
        ask(key)
    assert source.calls == count
    ask(0)
    assert source.calls == count + 1
    assert MAX_FAILURES - 2 <= len(cache._failures._entries) <= MAX_FAILURES


def test_errors_whose_time_is_over_make_room(clock: Clock) -> None:
    """Each new one takes up to two old ones along."""
    cache, source = new_cache(error_ttl=10, clock=clock), Source(ConnectionError())
    for key in range(20):
        spawn(cache.get, key, source).exception(TIMEOUT)
    clock.advance(11)
    for key in range(20, 40):
        spawn(cache.get, key, source).exception(TIMEOUT)
    assert len(cache._failures._entries) == 20


def test_many_threads_at_once(clock: Clock) -> None:
    """One call, and everybody gets its error, those who come later, too."""
    cache, source = new_cache(error_ttl=30, clock=clock), Source(ConnectionError())
    assert set(errors(spawn_many(12, lambda: cache.get("key", source)))) == {source.outcome}
    assert source.calls == 1


def test_a_decorated_function_and_method(clock: Clock) -> None:
    """`invalidate` ends the pause; other instances have errors of their own."""
    source = Source(ConnectionError())

    @cached(error_ttl=None, clock=clock)
    def function(_: int) -> Any:
        return source()

    class Service:
        @cached(error_ttl=None, clock=clock)
        def method(self, _: int) -> Any:
            return source()

    one, two = Service(), Service()
    for call in (function, one.method, two.method):
        for _ in range(2):
            with pytest.raises(ConnectionError):
                call(1)
    assert source.calls == 3
    source.outcome = "new"
    assert not function.invalidate(1)
    assert not Service.method.invalidate(one, 1)
    assert (function(1), one.method(1)) == ("new", "new")
    with pytest.raises(ConnectionError):
        two.method(1)


def test_an_error_goes_with_its_instance(clock: Clock) -> None:
    """A new object with the identity of a dead one does not inherit it."""

    class Service:
        @cached(error_ttl=None, clock=clock)
        def method(self) -> Any:
            return source()

    source = Source(ConnectionError())
    cache: Any = Service.method.cache
    service = Service()
    with pytest.raises(ConnectionError):
        service.method()
    source.outcome.__traceback__ = None  # type: ignore[attr-defined] # which knows the instance
    for entry in cache._failures._entries.values():
        object.__setattr__(entry.value, "traceback", None)
    reference, (key,) = weakref.ref(service), cache._failures._entries
    del service
    gc.collect()
    assert reference() is None
    with cache._lock:
        assert cache._failures.find(key, clock(), has_stale=False) is None


def test_what_replaces_an_error_lets_it_go(clock: Clock) -> None:
    """At once, with all that its traceback knows."""

    class Value:
        pass

    seen: list[weakref.ref[Value]] = []

    def fail() -> None:
        value = Value()
        seen.append(weakref.ref(value))
        raise ConnectionError

    cache = new_cache(error_ttl=None, clock=clock)
    with no_collection():
        for forget in (INVALIDATIONS["delete"], INVALIDATIONS["clear"], lambda cache: cache.set("key", 1)):
            with suppress(ConnectionError):
                cache.get("key", fail)
            assert seen[-1]() is not None
            forget(cache)
            assert seen[-1]() is None
            cache.clear()


def test_noting_a_failure_may_be_interrupted_by_code_that_uses_the_cache(clock: Clock) -> None:
    """A hash function stands for whatever runs there; it comes back to the same cache."""

    class Key:
        armed = False

        def __hash__(self) -> int:
            if Key.armed:
                Key.armed = False
                cache.delete(self)
                with pytest.raises(ConnectionError):
                    cache.get(self, Source(ConnectionError("inner")))
            return 7

        def __eq__(self, other: object) -> bool:
            return self is other

    cache: Any = new_cache(error_ttl=None, clock=clock)
    for number in range(3):
        cache.clear()
        hashes = 0

        def load(number: int = number) -> None:
            nonlocal hashes
            hashes += 1
            Key.armed = number > 0
            raise ConnectionError("outer")

        keys = [Key() for _ in range(MAX_FAILURES // 100)]
        for key in keys:
            with pytest.raises(ConnectionError):
                cache.get(key, load)
        Key.armed = False
        for key in keys:
            cache.set(key, "value")
            assert cache.get(key) == "value"
        assert cache._failures._entries == {}


def test_a_child_keeps_errors_and_forgets_loads() -> None:
    """As it keeps values."""
    script = """
cache = Cache("forked", error_ttl=None)

def fail():
    raise ConnectionError("parent")

def caught(loader):
    try:
        return cache.get("key", loader)
    except ConnectionError as error:
        return str(error)

assert caught(fail) == "parent"

def check():
    assert caught(lambda: "child") == "parent"
    cache.delete("key")
    assert caught(lambda: "child") == "child"

in_child(check)
assert caught(lambda: "new") == "parent"
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_all_who_wait_get_the_error(callers: Callers, others: Callers, clock: Clock) -> None:
    """One call, and one error for all of them."""
    cache, gate = new_cache(error_ttl=30, clock=clock), Gate(ConnectionError())
    asked = [callers.ask(cache, gate)]
    passed(gate.entered)
    asked += [others.ask(cache, gate) for _ in range(3)]
    until(lambda: cache.stats().load_waiters == 3)
    gate.opened.set()
    assert set(errors(asked)) == {gate.outcome}
    assert gate.calls == 1


def test_a_value_of_another_key_is_no_matter(callers: Callers, clock: Clock) -> None:
    """Each key has its own."""
    cache = new_cache(error_ttl=None, clock=clock)
    callers.error(cache, Source(ConnectionError()))
    assert results([callers.ask(cache, lambda: "fine", key="other")]) == ["fine"]
