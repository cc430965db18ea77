"""`get_many`: the missing keys and no others, with one call, shared key by key with everybody else who wants them."""

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from types import FrameType
from typing import Any

import pytest

from otel_perfopt import entry_options
from otel_perfopt.errors import LoadCancelled, LoadTimeout, ReentrantLoad
from otel_perfopt.telemetry import background
from otel_perfopt.testing import DictTier, capture
from otel_perfopt.tiers import Unencodable
from tests.cache.callers import Clock
from tests.cache.support import (
    TIMEOUT,
    Gate,
    LoopThread,
    new_cache,
    no_collection,
    passed,
    run,
    spawn,
    until,
    until_async,
)
from tests.cache.tier_support import Site, Stops
from tests.interruptions import interrupted_at

BROKEN = ConnectionError("the source is down")
PARTS = ("cache/", "single_flight/", "_core/")


class Squares:
    """A loader of many keys that notes what it is asked for.

    Args:
        without: the keys that it does not have.
        error: what it raises instead.
        gate: where it waits.
    """

    def __init__(self, *without: int, error: BaseException | None = None, gate: Gate | None = None) -> None:
        self.asked: list[list[int]] = []
        self.without = without
        self.error = error
        self.gate = gate

    def __call__(self, keys: list[int]) -> dict[int, int]:
        """Return the squares of the keys."""
        self.asked.append(keys)
        if self.gate is not None:
            self.gate()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key not in self.without}


class Asking:
    """Callers of one kind.

    Args:
        kind: thread, loop or worker, see `tests.cache.callers.KINDS`.
        loop: where coroutines live.
    """

    def __init__(self, kind: str, loop: LoopThread) -> None:
        self.kind = kind
        self._loop = loop

    def ask(self, cache: Any, keys: Any, loader: Any = None, **options: Any) -> "Future[dict[Any, Any]]":
        """Ask for keys, and do not wait for the answer."""
        if self.kind == "thread":
            return spawn(partial(cache.get_many, keys, loader, **options))
        given = as_coroutine(loader) if self.kind == "loop" and loader is not None else loader
        return self._loop.submit(cache.get_many_async(keys, given, **options))

    def get(self, cache: Any, keys: Any, loader: Any = None, **options: Any) -> Any:
        """Ask for keys, and return what is had."""
        return self.ask(cache, keys, loader, **options).result(TIMEOUT)

    def error(self, cache: Any, keys: Any, loader: Any = None, **options: Any) -> BaseException | None:
        """Ask for keys, and return what that raised."""
        return self.ask(cache, keys, loader, **options).exception(TIMEOUT)


def as_coroutine(loader: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Return a coroutine function that does what `loader` does, and does not block the loop."""

    async def load(keys: list[Any]) -> Any:
        if not isinstance(loader, Squares) or loader.gate is None:
            return loader(keys)
        gate, loader.gate = loader.gate, None
        gate.entered.set()
        await until_async(gate.opened.is_set)
        return loader(keys)

    return load


@pytest.fixture(params=["thread", "loop", "worker"])
def asking(request: pytest.FixtureRequest, loop_thread: LoopThread) -> Asking:
    """Callers of each kind in turn."""
    return Asking(request.param, loop_thread)


@pytest.fixture(params=["thread", "loop", "worker"])
def others(request: pytest.FixtureRequest, loop_thread: LoopThread) -> Asking:
    """Other callers, of each kind in turn."""
    return Asking(request.param, loop_thread)


def until_idle(cache: Any) -> None:
    """Wait until no load is in progress."""
    until(lambda: cache.stats().loads_in_flight == 0)


# which keys --------------------------------------------------------------------------------------------------


def test_the_loader_gets_exactly_the_missing_keys_once(asking: Asking) -> None:
    """In the order in which they are asked for; so are the values."""
    cache, squares = new_cache(), Squares()
    cache.set_many({2: 4, 5: 25})
    assert list(asking.get(cache, [5, 3, 2, 1, 3], squares).items()) == [(5, 25), (3, 9), (2, 4), (1, 1)]
    assert squares.asked == [[3, 1]]
    stats = cache.stats()
    assert (stats.hit_count, stats.miss_count, stats.size, stats.loads_in_flight) == (2, 2, 4, 0)
    assert asking.get(cache, [1, 3], squares) == {1: 1, 3: 9}
    assert len(squares.asked) == 1


def test_no_keys_need_no_call(asking: Asking) -> None:
    """Nor do keys that are all there."""
    cache, squares = new_cache(), Squares()
    cache.set(1, 1)
    assert (asking.get(cache, [], squares), asking.get(cache, [1], squares)) == ({}, {1: 1})
    assert squares.asked == []


def test_keys_may_be_anything_that_can_be_walked_once(asking: Asking) -> None:
    """Generators, sets, the keys of a dict."""
    cache, squares = new_cache(), Squares()
    assert asking.get(cache, (number for number in (1, 2)), squares) == {1: 1, 2: 4}
    assert asking.get(cache, {2, 3}, squares) == {2: 4, 3: 9}
    assert asking.get(cache, {4: None}.keys(), squares) == {4: 16}


def test_equal_keys_are_one(asking: Asking) -> None:
    """As in a dict."""
    cache, squares = new_cache(), Squares()
    assert asking.get(cache, [1, True, 1.0], squares) == {1: 1}
    assert squares.asked == [[1]]


def test_a_key_that_has_no_hash_is_refused(asking: Asking) -> None:
    """Before anything is loaded."""
    cache, squares = new_cache(), Squares()
    assert isinstance(asking.error(cache, [1, []], squares), TypeError)
    assert (squares.asked, cache.stats().loads_in_flight) == ([], 0)


def test_what_the_mapping_lacks_is_not_in_the_result(asking: Asking) -> None:
    """It is no error, is not kept, and is asked for the next time."""
    cache, squares = new_cache(), Squares(2)
    for _ in range(2):
        assert asking.get(cache, [1, 2, 3], squares) == {1: 1, 3: 9}
    assert squares.asked == [[1, 2, 3], [2]]
    stats = cache.stats()
    assert (stats.hit_count, stats.miss_count, stats.loads_in_flight) == (2, 4, 0)
    assert 2 not in cache


def test_what_else_the_mapping_has_is_ignored(asking: Asking) -> None:
    """Nobody has asked for it."""
    cache = new_cache()
    assert asking.get(cache, [1], lambda keys: {1: "a", 2: "b"}) == {1: "a"}
    assert 2 not in cache


@pytest.mark.parametrize("values", [None, 7, [1, 2], {1, 2}])
def test_something_that_is_no_mapping_is_an_error(asking: Asking, values: object) -> None:
    """With what it was."""
    cache = new_cache()
    error = asking.error(cache, [1, 2], lambda keys: values)
    assert isinstance(error, TypeError)
    assert type(values).__name__ in str(error)
    assert cache.stats().loads_in_flight == 0


def test_bug_a_mapping_that_fails_for_a_key(asking: Asking) -> None:
    """Those keys fail, and are not left in the air."""

    class Moody(dict[int, int]):
        def get(self, key: int, default: Any = None) -> Any:
            if key == 2:
                raise BROKEN
            return super().get(key, default)

    cache = new_cache()
    assert asking.error(cache, [1, 2, 3], lambda keys: Moody({1: 1, 2: 2, 3: 3})) is BROKEN
    assert (cache.get(1), 2 in cache, cache.get(3), cache.stats().loads_in_flight) == (1, False, 3, 0)


def test_without_a_loader_it_only_looks(asking: Asking) -> None:
    """Each key counts."""
    cache = new_cache()
    cache.set_many({1: None, 2: 4})
    assert asking.get(cache, [1, 2, 3]) == {1: None, 2: 4}
    assert (cache.stats().hit_count, cache.stats().miss_count) == (2, 1)


def test_loaders_that_do_not_fit() -> None:
    """A coroutine function under a synchronous call, what cannot be called, an awaitable under a synchronous call."""
    cache = new_cache()

    async def load(keys: list[int]) -> dict[int, int]:
        return dict.fromkeys(keys, 0)

    with pytest.raises(TypeError, match="coroutine function"):
        cache.get_many([1], load)
    with pytest.raises(TypeError, match="callable"):
        cache.get_many([1], 7)
    with pytest.raises(TypeError, match="awaitable"):
        cache.get_many([1], lambda keys: load(keys))
    assert run(cache.get_many_async([1], lambda keys: load(keys))) == {1: 0}


def test_ttl_and_tags_are_those_of_all(asking: Asking, clock: Clock) -> None:
    """The options of the call hold for each entry."""
    cache = new_cache(clock=clock)
    asking.get(cache, [1, 2], Squares(), ttl=5, tags=["tag"])
    clock.advance(4)
    assert 1 in cache
    cache.invalidate_tag("tag")
    assert (1 in cache, 2 in cache) == (False, False)
    asking.get(cache, [1], Squares(), ttl=5)
    clock.advance(5)
    assert 1 not in cache


def test_entry_options_inside_say_nothing(asking: Asking, clock: Clock) -> None:
    """There is no one entry that they could be meant for; not even that of a load in which the call is made."""
    cache = new_cache(clock=clock, ttl=100)

    def load(keys: list[int]) -> dict[int, int]:
        entry_options(ttl=1, tags=["tag"])
        return dict.fromkeys(keys, 0)

    asking.get(cache, [1, 2], load)
    cache.get("outer", lambda: cache.get_many([3], load))
    cache.invalidate_tag("tag")
    clock.advance(50)
    assert all(key in cache for key in (1, 2, 3, "outer"))


def test_ten_thousand_keys(asking: Asking) -> None:
    """One call."""
    cache, squares = new_cache(max_size=None), Squares()
    assert len(asking.get(cache, range(10_000), squares)) == 10_000
    assert [len(keys) for keys in squares.asked] == [10_000]
    assert (len(cache), cache.stats().miss_count) == (10_000, 10_000)


def test_more_keys_than_there_is_room_for(asking: Asking) -> None:
    """All are answered; so many are kept."""
    cache = new_cache(max_size=5)
    assert len(asking.get(cache, range(100), Squares())) == 100
    assert len(cache) == 5


def test_a_cache_that_keeps_nothing(asking: Asking) -> None:
    """Still answers."""
    cache, squares = new_cache(max_size=0), Squares()
    for _ in range(2):
        assert asking.get(cache, [1, 2], squares) == {1: 1, 2: 4}
    assert squares.asked == [[1, 2], [1, 2]]


# sharing -----------------------------------------------------------------------------------------------------


def test_overlapping_calls_share_each_key(asking: Asking, others: Asking) -> None:
    """The second call loads what the first one does not, and waits for the rest."""
    cache, gate = new_cache(), Gate()
    first, second = Squares(gate=gate), Squares()
    one = asking.ask(cache, [1, 2, 3], first)
    passed(gate.entered)
    two = others.ask(cache, [4, 2, 3, 5], second)
    until(lambda: second.asked == [[4, 5]])
    until(lambda: cache.stats().load_waiters == 2)
    assert not two.done()
    gate.opened.set()
    assert (one.result(TIMEOUT), two.result(TIMEOUT)) == ({1: 1, 2: 4, 3: 9}, {4: 16, 2: 4, 3: 9, 5: 25})
    assert (first.asked, second.asked) == ([[1, 2, 3]], [[4, 5]])
    assert (cache.stats().miss_count, cache.stats().hit_count) == (7, 0)


def test_a_single_get_joins_a_call_for_many_and_the_other_way_round(asking: Asking, others: Asking) -> None:
    """A load is a load."""
    cache, gate = new_cache(), Gate()
    many = asking.ask(cache, [1, 2], Squares(gate=gate))
    passed(gate.entered)
    single = spawn(lambda: cache.get(2, lambda: "never called"))
    alone = spawn(lambda: run(cache.get_async(1, lambda: "never called")))
    until(lambda: cache.stats().load_waiters == 2)
    gate.opened.set()
    assert (single.result(TIMEOUT), alone.result(TIMEOUT), many.result(TIMEOUT)) == (4, 1, {1: 1, 2: 4})
    gate, squares = Gate("single"), Squares()
    first = spawn(cache.get, 3, gate)
    passed(gate.entered)
    joined = others.ask(cache, [3, 4], squares)
    until(lambda: cache.stats().load_waiters == 1)
    gate.opened.set()
    assert (first.result(TIMEOUT), joined.result(TIMEOUT), squares.asked) == ("single", {3: "single", 4: 16}, [[4]])


def test_calls_that_want_each_others_keys_do_not_wait_for_each_other(asking: Asking, others: Asking) -> None:
    """Each makes its own call first: the keys of one are among those of the other, and the other way round."""
    cache, first, second = new_cache(), Gate(), Gate()
    one = asking.ask(cache, [1], Squares(gate=first))
    passed(first.entered)
    two = others.ask(cache, [2, 1], Squares(gate=second))
    passed(second.entered)
    three = asking.ask(cache, [1, 2, 3], Squares())
    until(lambda: cache.stats().load_waiters == 3)
    second.opened.set()
    first.opened.set()
    assert [each.result(TIMEOUT) for each in (one, two, three)] == [{1: 1}, {2: 4, 1: 1}, {1: 1, 2: 4, 3: 9}]


def test_who_waits_for_a_key_that_a_call_did_not_find_loads_it(asking: Asking, others: Asking) -> None:
    """Its own loader may have it."""
    cache, gate = new_cache(), Gate()
    many = asking.ask(cache, [1, 2], Squares(2, gate=gate))
    passed(gate.entered)
    squares = Squares()
    waiting = others.ask(cache, [2, 1], squares)
    until(lambda: cache.stats().load_waiters == 2)
    gate.opened.set()
    assert (many.result(TIMEOUT), waiting.result(TIMEOUT), squares.asked) == ({1: 1}, {2: 4, 1: 1}, [[2]])
    assert (cache.stats().miss_count, cache.stats().hit_count) == (4, 0)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete(1),
    "set": lambda cache: cache.set(1, "set"),
    "tag": lambda cache: cache.invalidate_tag("tag"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_forbids_to_store_just_what_it_concerns(asking: Asking, name: str) -> None:
    """Those who wait get what was loaded; later callers do not."""
    cache, gate = new_cache(), Gate()
    many = asking.ask(cache, [1, 2], Squares(gate=gate), tags=["tag"])
    passed(gate.entered)
    CHANGES[name](cache)
    gate.opened.set()
    assert many.result(TIMEOUT) == {1: 1, 2: 4}
    assert cache.get(1) == ("set" if name == "set" else None)
    assert cache.get(2) == (4 if name in ("delete", "set") else None)


# failures ------------------------------------------------------------------------------------------------------


def test_a_loader_that_fails_fails_the_call_and_those_who_wait(asking: Asking, others: Asking) -> None:
    """With its own error; nothing is kept, and the next call loads."""
    cache, gate = new_cache(), Gate()
    many = asking.ask(cache, [1, 2], Squares(error=BROKEN, gate=gate))
    passed(gate.entered)
    squares = Squares()
    waiting = others.ask(cache, [2, 3], squares)
    until(lambda: cache.stats().load_waiters == 1)
    gate.opened.set()
    assert many.exception(TIMEOUT) is waiting.exception(TIMEOUT) is BROKEN
    assert (squares.asked, cache.get(3), len(cache), cache.stats().loads_in_flight) == ([[3]], 9, 1, 0)
    assert asking.get(cache, [1, 2], Squares()) == {1: 1, 2: 4}


def test_a_failure_keeps_its_traceback(asking: Asking) -> None:
    """It does not grow from call to call."""
    cache = new_cache(error_ttl=None)
    error = ValueError("once")
    lengths = []
    for _ in range(4):
        found = asking.error(cache, [1], Squares(error=error))
        assert found is error
        lengths.append(len(list(_frames(error))))
    assert lengths[1:] == lengths[1:2] * 3


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def test_a_remembered_failure_is_that_of_each_key(asking: Asking, clock: Clock) -> None:
    """`error_ttl`: the keys that failed are not asked for again, the others are."""
    cache, squares = new_cache(error_ttl=10, clock=clock), Squares()
    assert asking.error(cache, [1, 2], Squares(error=BROKEN)) is BROKEN
    assert asking.error(cache, [2, 3], squares) is BROKEN
    assert (squares.asked, cache.get(3)) == ([[3]], 9)
    clock.advance(10)
    assert asking.get(cache, [1, 2], squares) == {1: 1, 2: 4}


def test_stale_values_where_there_are_any(asking: Asking, clock: Clock) -> None:
    """If every key has one the call succeeds; if one has not, it fails."""
    cache = new_cache(ttl=10, stale_for=100, clock=clock)
    cache.set_many({1: "old 1", 2: "old 2"})
    clock.advance(20)
    assert asking.get(cache, [1, 2], Squares(error=BROKEN)) == {1: "old 1", 2: "old 2"}
    assert (cache.stats().stale_count, cache.stats().miss_count) == (2, 0)
    assert asking.error(cache, [1, 3], Squares(error=BROKEN)) is BROKEN
    assert (cache.stats().stale_count, cache.stats().miss_count) == (3, 1)


def test_a_weigher_that_fails_for_one_key(asking: Asking, others: Asking) -> None:
    """That key fails; the others are kept, and those who wait for them get them."""
    gate = Gate()

    def weigh(key: int, value: int) -> float:
        if key == 2:
            raise BROKEN
        return 1.0

    cache = new_cache(max_weight=10, weigher=weigh)
    many = asking.ask(cache, [1, 2, 3], Squares(gate=gate))
    passed(gate.entered)
    waiting = others.ask(cache, [1, 3], Squares())
    until(lambda: cache.stats().load_waiters == 2)
    gate.opened.set()
    assert many.exception(TIMEOUT) is BROKEN
    assert waiting.result(TIMEOUT) == {1: 1, 3: 9}
    assert (len(cache), cache.stats().loads_in_flight) == (2, 0)


@pytest.mark.parametrize("name", ["loader", "weigher", "mapping"])
def test_an_interruption_leaves_nothing_in_the_air(name: str) -> None:
    """Ctrl-C in user code: the caller gets it; those who wait load for themselves."""
    gate = Gate(KeyboardInterrupt())
    fails = [name]

    def interrupt(here: str) -> None:
        if here in fails:
            fails.remove(here)
            gate()

    class Values(dict[int, int]):
        def get(self, key: int, default: Any = None) -> Any:
            interrupt("mapping")
            return super().get(key, default)

    def load(keys: list[int]) -> Mapping[int, int]:
        interrupt("loader")
        return Values({key: key * key for key in keys})

    def weigh(key: int, value: int) -> float:
        interrupt("weigher")
        return 1.0

    cache = new_cache(max_weight=10, weigher=weigh)
    many = spawn(cache.get_many, [1, 2, 3], load)
    passed(gate.entered)
    waiting = spawn(cache.get_many, [2, 3, 4], Squares())
    until(lambda: cache.stats().load_waiters == 2)
    gate.opened.set()
    assert isinstance(many.exception(TIMEOUT), KeyboardInterrupt)
    assert waiting.result(TIMEOUT) == {2: 4, 3: 9, 4: 16}
    assert cache.stats().loads_in_flight == 0


@pytest.mark.parametrize("is_tiered", [False, True])
def test_it_may_be_interrupted_anywhere(is_tiered: bool) -> None:
    """At each line in turn: nobody hangs afterwards, and the cache works for others."""
    line, more = 0, True
    with no_collection():  # or a finalizer of other tests' garbage would be interrupted
        while more:
            line += 1
            tier = DictTier()
            cache = new_cache(max_size=2, tiers=[tier.peer()] if is_tiered else ())
            if is_tiered:
                new_cache(tiers=[tier.peer()]).set(3, 9)
            cache.set("old", 1)
            more = bool(
                interrupted_at(line, partial(cache.get_many, [1, 2, 3, "old"], lambda keys: {1: 1, 2: 4, 3: 9, "old": 1}), PARTS)
            )
            assert spawn(cache.get_many, [1, 2, 3], Squares()).result(TIMEOUT) == {1: 1, 2: 4, 3: 9}, line
            assert spawn(cache.get, 1, lambda: 1).result(TIMEOUT) == 1
            assert len(cache._flights) == 0, line
            assert all(entry.queue for entry in cache._store.entries.values())
    assert line > 100, "nothing was interrupted"


# cancelling, timeouts, reentrancy -----------------------------------------------------------------------------


def test_a_cancelled_caller_leaves_the_others_what_they_want() -> None:
    """The call goes on as long as anybody wants any of its keys."""
    cache = new_cache()

    async def main() -> None:
        entered, opened = asyncio.Event(), asyncio.Event()

        async def load(keys: list[int]) -> dict[int, int]:
            entered.set()
            await opened.wait()
            return {key: key * key for key in keys}

        first = asyncio.create_task(cache.get_many_async([1, 2, 3], load))
        await entered.wait()
        second = asyncio.create_task(cache.get_async(2, load))
        await until_async(lambda: cache.stats().load_waiters == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        opened.set()
        assert await second == 4

    run(main())
    stats = cache.stats()
    assert (stats.loads_in_flight, stats.miss_count, stats.hit_count) == (0, 4, 0)


@pytest.mark.parametrize("is_tiered", [False, True])
def test_bug_the_last_caller_to_go_cancels_the_call(is_tiered: bool) -> None:
    """Also if some of its keys had been found behind the memory; and it counts, as every request does."""
    site = Site(tiers=()) if not is_tiered else Site()
    cache = site.cache()[0]
    if is_tiered:
        site.cache()[0].set(9, 81)
    cancelled: list[bool] = []

    async def main() -> None:
        entered = asyncio.Event()

        async def load(keys: list[int]) -> dict[int, int]:
            assert keys == ([1, 2] if is_tiered else [9, 1, 2])
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return {}

        callers = [asyncio.create_task(cache.get_many_async([9, 1, 2], load)) for _ in range(2)]
        await entered.wait()
        for caller in callers:
            assert not cancelled
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await until_async(lambda: bool(cancelled))

    run(main())
    until_idle(cache)
    assert cache.stats().miss_count == 6
    assert cache.get_many([1, 2], Squares()) == {1: 1, 2: 4}


def test_bug_a_loader_that_is_cancelled_from_inside() -> None:
    """Its caller was not cancelled, and must not believe so; others who wait try again."""
    cache = new_cache()

    async def load(keys: list[int]) -> dict[int, int]:
        raise asyncio.CancelledError

    with pytest.raises(LoadCancelled, match="1 in cache 'test'"):
        run(cache.get_many_async([1, 2], load))
    assert cache.stats().loads_in_flight == 0
    assert cache.stats().miss_count == 2


def test_a_loop_that_ends_leaves_nothing_in_the_air() -> None:
    """Callers elsewhere load for themselves."""
    cache = new_cache()

    async def main() -> "Future[Any]":
        entered = asyncio.Event()

        async def load(keys: list[int]) -> dict[int, int]:
            entered.set()
            await asyncio.Event().wait()
            return {}

        task = asyncio.create_task(cache.get_many_async([1, 2], load))
        await entered.wait()
        waiting = spawn(cache.get_many, [2, 3], Squares())
        await until_async(lambda: cache.stats().load_waiters == 1)
        assert not task.done()
        return waiting

    assert run(main()).result(TIMEOUT) == {2: 4, 3: 9}


def test_a_hard_timeout(asking: Asking, clock: Clock) -> None:
    """The caller stops waiting; the call goes on, and its values are kept."""
    cache, gate = new_cache(hard_timeout=10, clock=clock), Gate()
    cache.set(3, 9)
    many = asking.ask(cache, [1, 2, 3], Squares(gate=gate))
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(10)
    assert isinstance(many.exception(TIMEOUT), LoadTimeout)
    assert (cache.stats().miss_count, cache.stats().hit_count) == (2, 1)
    gate.opened.set()
    until(lambda: 1 in cache and 2 in cache)
    assert asking.get(cache, [1, 2], Squares(error=BROKEN)) == {1: 1, 2: 4}


def test_a_soft_timeout_needs_something_else_for_every_key(asking: Asking, clock: Clock) -> None:
    """Then stale values are served; otherwise the hard one holds, with stale values where there are any."""
    options: dict[str, Any] = {"ttl": 10, "stale_for": 1000, "soft_timeout": 1, "hard_timeout": 5}
    cache, gate = new_cache(clock=clock, **options), Gate()
    cache.set_many({1: "old 1", 2: "old 2"})
    clock.advance(20)
    many = asking.ask(cache, [1, 2], Squares(gate=gate))
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(1)
    assert many.result(TIMEOUT) == {1: "old 1", 2: "old 2"}
    assert (cache.stats().stale_count, cache.stats().miss_count) == (2, 0)
    before, third = clock.timers, Gate()
    many = asking.ask(cache, [1, 2, 3], squares := Squares(gate=third))
    passed(third.entered)
    clock.until_set(before + 1)
    clock.advance(4)
    assert not many.done()
    clock.advance(1)
    assert isinstance(many.exception(TIMEOUT), LoadTimeout)
    third.opened.set()
    gate.opened.set()
    until_idle(cache)
    assert asking.get(cache, [1, 2, 3], squares) == {1: 1, 2: 4, 3: 9}


def test_bug_a_stale_value_that_goes_while_it_is_waited_for(asking: Asking, clock: Clock) -> None:
    """Invalidated before the soft timeout: the hard one holds, and not a second soft one."""
    options: dict[str, Any] = {"ttl": 10, "stale_for": 1000, "soft_timeout": 1, "hard_timeout": 5}
    cache, gate = new_cache(clock=clock, **options), Gate()
    cache.set_many({1: "old 1", 2: "old 2"}, tags=["tag"])
    clock.advance(20)
    many = asking.ask(cache, [1, 2], Squares(gate=gate))
    passed(gate.entered)
    clock.until_set(1)
    cache.invalidate_tag("tag")
    clock.advance(1)
    clock.until_set(1)
    assert not many.done()
    gate.opened.set()
    assert many.result(TIMEOUT) == {1: 1, 2: 4}


def test_the_loader_may_ask_the_same_cache_for_other_keys(asking: Asking) -> None:
    """One by one or together; but not for those that it is to load."""
    cache = new_cache()

    def load(keys: list[int]) -> dict[int, int]:
        assert cache.get("one", lambda: 1) == 1
        assert cache.get_many(["two", "one"], lambda missing: dict.fromkeys(missing, 2)) == {"two": 2, "one": 1}
        return {key: key for key in keys}

    assert asking.get(cache, [1, 2], load) == {1: 1, 2: 2}


def test_a_load_of_a_key_that_wants_itself_is_refused(asking: Asking) -> None:
    """A ReentrantLoad instead of a deadlock, by `get` and by `get_many`; and everything works afterwards."""
    cache, errors = new_cache(), []

    def load(keys: list[int]) -> dict[int, int]:
        wishes: list[Callable[[], Any]] = [lambda: cache.get(2, lambda: 0), lambda: cache.get_many([3, 1], Squares())]
        for wish in wishes:
            try:
                wish()
            except ReentrantLoad as error:
                errors.append(error)
        return {key: key * key for key in keys}

    assert asking.get(cache, [1, 2], load) == {1: 1, 2: 4}
    assert len(errors) == 2
    assert (cache.get(3), cache.stats().loads_in_flight) == (9, 0)


def test_two_calls_that_want_each_other_from_inside(asking: Asking) -> None:
    """One of them is refused; the other one gets what it wants."""
    cache, first, second = new_cache(), threading.Event(), threading.Event()

    def load_one(keys: list[int]) -> dict[int, Any]:
        first.set()
        passed(second)
        return {key: cache.get(2, lambda: "own") for key in keys}

    def load_two(keys: list[int]) -> dict[int, Any]:
        second.set()
        passed(first)
        until(lambda: cache.stats().load_waiters == 1)
        try:
            return {key: cache.get(1, lambda: "own") for key in keys}
        except ReentrantLoad:
            return dict.fromkeys(keys, "refused")

    one = Asking("thread", asking._loop).ask(cache, [1], load_one)
    passed(first)
    two = Asking("thread", asking._loop).ask(cache, [2], load_two)
    assert (one.result(TIMEOUT), two.result(TIMEOUT)) == ({1: "refused"}, {2: "refused"})


def test_a_synchronous_call_that_blocks_the_loop_of_a_load_is_refused() -> None:
    """Nobody would go on."""
    cache = new_cache()

    async def main() -> None:
        async def load(keys: list[int]) -> dict[int, int]:
            await asyncio.sleep(0)
            return {key: key for key in keys}

        task = asyncio.create_task(cache.get_many_async([1, 2], load))
        await until_async(lambda: cache.stats().loads_in_flight == 2)
        with pytest.raises(ReentrantLoad):
            cache.get_many([2, 3], Squares())
        assert await task == {1: 1, 2: 2}

    run(main())
    assert cache.get(3) == 9


# refreshes --------------------------------------------------------------------------------------------------


def test_old_values_are_loaded_anew_behind_the_call(asking: Asking, clock: Clock) -> None:
    """Each by itself; the call returns what is there."""
    cache, squares = new_cache(ttl=100, refresh_after=50, clock=clock), Squares()
    cache.set_many({1: "old", 2: "old"})
    clock.advance(50)
    cache.set(3, "young")
    assert asking.get(cache, [1, 2, 3], squares) == {1: "old", 2: "old", 3: "young"}
    until(lambda: sorted(squares.asked) == [[1], [2]])
    until_idle(cache)
    assert cache.get_many([1, 2, 3]) == {1: 1, 2: 4, 3: "young"}
    assert (cache.stats().refreshes, cache.stats().hit_count, cache.stats().miss_count) == (2, 6, 0)


def test_bug_without_a_loader_nothing_is_refreshed(asking: Asking, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """It was tried with no loader, failed, and warned."""
    cache = new_cache(ttl=100, refresh_after=50, clock=clock)
    cache.set(1, "old")
    clock.advance(50)
    assert asking.get(cache, [1]) == {1: "old"}
    assert background.wait(TIMEOUT)
    assert (cache.stats().refreshes, caplog.records) == (0, [])


def test_bug_a_refresh_by_a_function_that_returns_an_awaitable(clock: Clock) -> None:
    """It is awaited, as in the call itself."""
    cache = new_cache(ttl=100, refresh_after=50, clock=clock)
    cache.set(1, "old")
    clock.advance(50)

    async def later(keys: list[int]) -> dict[int, str]:
        return dict.fromkeys(keys, "new")

    async def main() -> None:
        assert await cache.get_many_async([1], lambda keys: later(keys)) == {1: "old"}
        await until_async(lambda: cache.get(1) == "new")

    run(main())


# tiers ---------------------------------------------------------------------------------------------------------


def test_tiers_are_asked_once_for_all_keys(asking: Asking) -> None:
    """The loader gets what none of them has; what was loaded is in all of them."""
    site, squares = Site(), Squares()
    site.cache()[0].set_many({1: "one", 2: "two"})
    near = Stops(DictTier(clock=site.wall))
    cache, _ = site.cache(tiers=[near, far := Stops(site.shared.peer())])
    cache.set(5, "memory")
    near.read_keys.clear()
    assert asking.get(cache, [1, 2, 3, 4, 5], squares) == {1: "one", 2: "two", 3: 9, 4: 16, 5: "memory"}
    assert (near.read_keys, far.read_keys, squares.asked) == ([4], [4], [[3, 4]])
    assert site.cache()[0].get_many([1, 2, 3, 4, 5]) == {1: "one", 2: "two", 3: 9, 4: 16, 5: "memory"}
    stats = cache.stats()
    assert (stats.hits_by_tier, stats.miss_count) == ({"memory": 1, "dict": 2}, 2)
    assert near.tier.usage().entries == 5


def test_without_a_loader_tiers_are_asked_too(asking: Asking) -> None:
    """Keys that none has are misses."""
    site = Site()
    site.cache()[0].set(1, "one")
    cache = site.cache()[0]
    assert asking.get(cache, [1, 2]) == {1: "one"}
    assert (cache.stats().hits_by_tier["dict"], cache.stats().miss_count) == (1, 1)


def test_a_tier_that_has_everything_makes_one_span(asking: Asking) -> None:
    """And no load."""
    site = Site()
    site.cache(name="many")[0].set_many({1: 1, 2: 4})
    cache = site.cache(name="many")[0]
    with capture() as captured:
        asking.get(cache, [1, 2], Squares())
        asking.get(cache, [3, 4], Squares())
    tiers = [dict(span.attributes or {}).get("perfopt.cache.tier") for span in captured.spans]
    assert ([span.name for span in captured.spans], tiers) == (["load many"] * 2, ["dict", None])
    assert captured.metric("perfopt.cache.load.duration", name="many") == 1


def test_stale_records_stand_in(asking: Asking) -> None:
    """After a restart, when the source is down."""
    site = Site(ttl=10, stale_for=100)
    site.cache()[0].set_many({1: "one", 2: "two"})
    site.advance(20)
    cache = site.cache()[0]
    assert asking.get(cache, [1, 2], Squares(error=BROKEN)) == {1: "one", 2: "two"}
    assert cache.stats().stale_count == 2


class Odd:
    """A key without bytes."""


def test_bug_a_key_without_bytes_is_its_own_trouble(asking: Asking, others: Asking) -> None:
    """The call fails, but other keys are loaded, and whoever waits for them gets them."""
    site, gate = Site(), Gate()
    cache, squares, odd = site.cache()[0], Squares(gate=gate), Odd()
    many = asking.ask(cache, [1, odd, 2], squares)
    passed(gate.entered)
    waiting = others.ask(cache, [2], Squares())
    until(lambda: cache.stats().load_waiters == 1)
    gate.opened.set()
    assert isinstance(many.exception(TIMEOUT), Unencodable)
    assert (waiting.result(TIMEOUT), squares.asked, cache.get(1)) == ({2: 4}, [[1, 2]], 1)


def test_a_weigher_that_fails_for_what_a_tier_has(asking: Asking) -> None:
    """That key fails, the others do not."""

    def weigh(key: int, value: int) -> float:
        if key == 1:
            raise BROKEN
        return 1.0

    site = Site()
    site.cache()[0].set_many({1: 1, 2: 4})
    cache = site.cache(max_weight=10, weigher=weigh)[0]
    assert asking.error(cache, [1, 2, 3], Squares()) is BROKEN
    assert (cache.get(2), cache.get(3)) == (4, 9)


def test_a_tier_that_is_away_makes_everything_a_load(asking: Asking) -> None:
    """And one read is tried."""
    site = Site()
    cache, tier = site.cache()
    tier.is_away = True
    logging.disable(logging.CRITICAL)
    try:
        assert asking.get(cache, [1, 2], Squares()) == {1: 1, 2: 4}
    finally:
        logging.disable(logging.NOTSET)
    assert cache.stats().miss_count == 2


# garbage -------------------------------------------------------------------------------------------------------


class Value:
    """Something that can be referred to weakly."""


@pytest.mark.parametrize("is_failing", [False, True])
def test_a_dropped_cache_is_gone_at_once(is_failing: bool) -> None:
    """By reference counts alone, also after calls that failed."""

    def load(keys: list[int]) -> dict[int, Any]:
        if is_failing:
            raise ZeroDivisionError
        return {key: Value() for key in keys}

    async def caught(cache: Any, loader: Any) -> None:
        try:
            await cache.get_many_async([3, 4], loader)
        except ZeroDivisionError:
            pass

    cache = new_cache()
    run(caught(cache, as_coroutine(load)))  # the first loop of a process leaves something behind
    with no_collection():
        cache = new_cache()
        try:
            cache.get_many([1, 2], load)
        except ZeroDivisionError:
            pass
        reference = weakref.ref(cache)
        del cache
        assert reference() is None


@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.parametrize("is_failing", [False, True])
def test_an_async_call_leaves_no_cycles(is_coroutine: bool, is_failing: bool) -> None:
    """The same for coroutines, while their loop goes on."""

    def load(keys: list[int]) -> dict[int, int]:
        if is_failing:
            raise ZeroDivisionError
        return dict.fromkeys(keys, 0)

    async def main() -> None:
        cache = new_cache()
        try:
            await cache.get_many_async([1, 2], as_coroutine(load) if is_coroutine else load)
        except ZeroDivisionError:
            pass
        reference = weakref.ref(cache)
        del cache
        await until_async(lambda: reference() is None)

    run(main())  # the first loop of a process leaves something behind
    with no_collection():
        run(main())
