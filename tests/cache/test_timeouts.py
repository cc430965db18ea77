"""Timeouts of loads: who stops waiting, what they get instead, and that the load goes on and is kept."""

import asyncio
import contextvars
import threading
import traceback
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from otel_perfopt import LoadTimeout, ReentrantLoad, cached
from otel_perfopt.single_flight import job, sharing
from otel_perfopt.single_flight.waiting import wait_in_thread
from otel_perfopt.telemetry import background
from otel_perfopt.testing import ManualClock
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import (
    TIMEOUT,
    AsyncGate,
    Gate,
    LoopThread,
    errors,
    new_cache,
    no_collection,
    passed,
    results,
    run,
    spawn,
    spawn_many,
    until,
    until_async,
    until_waiting,
)

TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")


def stale_cache(clock: Clock, **options: Any) -> Any:
    """Make a cache with one value whose time is over, that waits a second for a new one."""
    cache = new_cache(**{"ttl": 60, "stale_for": 3600, "soft_timeout": 1, "clock": clock, **options})
    cache.set("key", "old", tags=["tag"])
    clock.advance(61)
    return cache


def until_idle(cache: Any) -> None:
    """Wait until no load is in progress."""
    until(lambda: cache.stats().loads_in_flight == 0)


# --- soft ------------------------------------------------------------------------------------------


def test_a_slow_load_is_not_waited_for_if_there_is_an_old_value(callers: Callers, clock: Clock) -> None:
    """The old value is served, the load goes on, and the next caller finds what it has brought."""
    cache, gate = stale_cache(clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(0.99)
    assert not asked.done()
    clock.advance(0.01)
    assert asked.result(TIMEOUT) == "old"
    assert cache.stats().loads_in_flight == 1
    gate.opened.set()
    until_idle(cache)
    assert cache.get("key") == "new"
    assert gate.calls == 1
    stats = cache.stats()
    assert (stats.stale_count, stats.miss_count, stats.hit_count) == (1, 0, 1)


def test_a_load_in_time_is_waited_for(callers: Callers, clock: Clock) -> None:
    """The old value is a makeshift."""
    cache, gate = stale_cache(clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(0.5)
    gate.opened.set()
    assert asked.result(TIMEOUT) == "new"
    assert cache.stats().stale_count == 0


def test_without_an_old_value_everybody_waits(callers: Callers, clock: Clock) -> None:
    """A soft timeout alone is no reason for an error."""
    cache, gate = new_cache(ttl=60, stale_for=3600, soft_timeout=1, clock=clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.advance(3600)
    assert not asked.done()
    gate.opened.set()
    assert asked.result(TIMEOUT) == "new"


def test_zero_does_not_wait_at_all(callers: Callers, clock: Clock) -> None:
    """Every caller gets the old value at once, and one load goes on behind them."""
    cache, gate = stale_cache(clock, soft_timeout=0), Gate("new")
    assert [callers.get(cache, gate) for _ in range(3)] == ["old"] * 3
    passed(gate.entered)
    assert cache.stats().loads_in_flight == 1
    gate.opened.set()
    until_idle(cache)
    assert callers.get(cache, gate) == "new"
    assert gate.calls == 1


def test_each_caller_waits_a_time_of_its_own(callers: Callers, others: Callers, clock: Clock) -> None:
    """Who came later, waits longer for the same load."""
    cache, gate = stale_cache(clock), Gate("new")
    first = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(0.6)
    second = others.ask(cache, gate)
    clock.until_set(2)
    clock.advance(0.4)
    assert first.result(TIMEOUT) == "old"
    assert not second.done()
    gate.opened.set()
    assert second.result(TIMEOUT) == "new"
    assert gate.calls == 1


def test_a_load_that_fails_after_all_have_gone_is_noticed(callers: Callers, clock: Clock) -> None:
    """Nobody hears of the error, and the next callers do not try at once."""
    cache, gate, source = stale_cache(clock, soft_timeout=0), Gate(ConnectionError()), Source("new")
    assert callers.get(cache, gate) == "old"
    passed(gate.entered)
    gate.opened.set()
    until_idle(cache)
    assert callers.get(cache, source) == "old"
    assert source.calls == 0
    clock.advance(10)
    callers.get(cache, source)
    until_idle(cache)
    assert cache.get("key") == "new"


@pytest.mark.parametrize("how", ["delete", "clear", "invalidate_tag"])
def test_what_an_abandoned_load_brings_is_not_kept_after_an_invalidation(how: str, callers: Callers, clock: Clock) -> None:
    """That nobody waits for it makes no difference."""
    cache, gate = stale_cache(clock, soft_timeout=0), Gate("outdated")
    assert callers.get(cache, gate, tags=["tag"]) == "old"
    passed(gate.entered)
    invalidate(cache, how)
    assert callers.get(cache, lambda: "new") == "new"
    gate.opened.set()
    until_idle(cache)
    assert cache.get("key") == "new"


def invalidate(cache: Any, how: str) -> None:
    """Invalidate the key of `stale_cache` in one of several ways."""
    getattr(cache, how)(*{"delete": ["key"], "clear": [], "invalidate_tag": ["tag"]}[how])


@pytest.mark.parametrize("how", ["delete", "clear", "invalidate_tag"])
@pytest.mark.parametrize("hard", [None, 5])
def test_bug_a_caller_whose_old_value_was_invalidated_while_it_waited_got_a_timeout(
    how: str, hard: float | None, callers: Callers, clock: Clock
) -> None:
    """After the soft timeout there is nothing to serve any more: it waits on, as it would have done from the beginning."""
    cache, gate = stale_cache(clock, hard_timeout=hard), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    invalidate(cache, how)
    clock.advance(1)
    clock.until_set(0 if hard is None else 1)
    assert not asked.done()
    if hard is not None:
        clock.advance(3.9)
        assert not asked.done()
        clock.advance(0.1)
        assert isinstance(asked.exception(TIMEOUT), LoadTimeout)
    gate.opened.set()
    if hard is None:
        assert asked.result(TIMEOUT) == "new"
    until_idle(cache)


# --- hard ------------------------------------------------------------------------------------------


def test_nobody_waits_longer_than_the_hard_timeout(callers: Callers, clock: Clock) -> None:
    """The error says what took so long; the load goes on, and its value is kept."""
    cache, gate = new_cache("slow", hard_timeout=2, clock=clock), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(1.99)
    assert not asked.done()
    clock.advance(0.01)
    error = asked.exception(TIMEOUT)
    assert isinstance(error, LoadTimeout)
    assert isinstance(error, TimeoutError)
    assert str(error) == "loading 'key' in cache 'slow' took longer than 2 s; it goes on, and is kept"
    assert (error.code, error.context) == ("LOAD_TIMEOUT", {"cache": "slow"})
    gate.opened.set()
    until_idle(cache)
    assert cache.get("key") == "new"
    assert (cache.stats().miss_count, cache.stats().hit_count) == (1, 1)


def test_at_the_hard_timeout_an_old_value_is_better_than_an_error(callers: Callers, clock: Clock) -> None:
    """Also without a soft timeout."""
    cache, gate = stale_cache(clock, soft_timeout=None, hard_timeout=5), Gate("new")
    asked = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(5)
    assert asked.result(TIMEOUT) == "old"
    gate.opened.set()
    until_idle(cache)
    assert cache.get("key") == "new"


def test_callers_who_joined_late_have_a_time_of_their_own(callers: Callers, others: Callers, clock: Clock) -> None:
    """The load is late for the first, and in time for the second."""
    cache, gate = new_cache(hard_timeout=2, clock=clock), Gate("new")
    first = callers.ask(cache, gate)
    passed(gate.entered)
    clock.until_set(1)
    clock.advance(1.5)
    second = others.ask(cache, gate)
    clock.until_set(2)
    clock.advance(0.5)
    assert isinstance(first.exception(TIMEOUT), LoadTimeout)
    gate.opened.set()
    assert second.result(TIMEOUT) == "new"
    assert gate.calls == 1


def test_callers_after_a_timeout_join_the_same_load(callers: Callers, others: Callers, clock: Clock) -> None:
    """A slow source is not asked again by everybody who comes."""
    cache, gate = new_cache(hard_timeout=1, clock=clock), Gate("new")
    for _ in range(3):
        asked = callers.ask(cache, gate)
        passed(gate.entered)
        clock.until_set(1)
        clock.advance(1)
        assert isinstance(asked.exception(TIMEOUT), LoadTimeout)
    last = others.ask(cache, gate)
    clock.until_set(1)
    gate.opened.set()
    assert last.result(TIMEOUT) == "new"
    assert gate.calls == 1


def test_bug_the_time_began_anew_with_each_attempt(clock: Clock) -> None:
    """A caller whose load was given up by those who ran it tries again, with what is left of its time."""
    cache = new_cache(hard_timeout=10, clock=clock)
    with LoopThread() as loop:
        owner = loop.submit(cache.get_async("key", asyncio.Event().wait))
        clock.until_set(1)
        waiter = spawn(cache.get, "key", gate := Gate("mine"))
        clock.until_set(2)
        clock.advance(9)
        loop.stop()  # a load on a loop that does not run is nobody's
        passed(gate.entered)
        clock.advance(1)
        assert isinstance(waiter.exception(TIMEOUT), LoadTimeout)
        gate.opened.set()
        until(lambda: "key" in cache)
        assert not owner.done()


def test_an_error_in_time_is_the_error(callers: Callers, clock: Clock) -> None:
    """With its traceback, from wherever it ran."""
    cache = new_cache(hard_timeout=2, clock=clock)
    error = callers.error(cache, lambda: 1 // 0)
    assert isinstance(error, ZeroDivisionError)
    assert "1 // 0" in "".join(traceback.format_exception(error))


# --- cancellation, interruption, exits -----------------------------------------------------------------


def test_a_caller_who_is_cancelled_takes_nobody_along(clock: Clock) -> None:
    """The load goes on for the others."""

    async def main() -> None:
        cache, gate = new_cache(hard_timeout=5, clock=clock), AsyncGate("new")
        tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(3)]
        await gate.entered.wait()
        tasks[0].cancel()
        await until_async(tasks[0].cancelled)
        gate.opened.set()
        assert await asyncio.gather(*tasks[1:]) == ["new", "new"]
        assert (gate.calls, gate.cancelled) == (1, 0)

    run(main())


def test_the_last_caller_who_is_cancelled_takes_the_load_along(clock: Clock) -> None:
    """Nobody wants it any more."""

    async def main() -> None:
        cache, gate = new_cache(hard_timeout=5, clock=clock), AsyncGate("new")
        tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(3)]
        await gate.entered.wait()
        for task in tasks:
            task.cancel()
        await until_async(lambda: gate.cancelled == 1)
        assert await cache.get_async("key", lambda: "mine") == "mine"

    run(main())


def test_a_load_whose_callers_ran_out_of_time_is_not_cancelled_by_the_last_one(clock: Clock) -> None:
    """It was promised to be kept."""

    async def main() -> None:
        cache, gate = new_cache(hard_timeout=5, clock=clock), AsyncGate("new")
        late = asyncio.create_task(cache.get_async("key", gate))
        await gate.entered.wait()
        await until_async(lambda: clock.timers == 1)
        clock.advance(5)
        with pytest.raises(LoadTimeout):
            await late
        task = asyncio.create_task(cache.get_async("key", gate))
        await until_async(lambda: clock.timers == 1)
        task.cancel()
        await until_async(task.cancelled)
        gate.opened.set()
        await until_async(lambda: "key" in cache)
        assert gate.cancelled == 0

    run(main())


def test_a_loop_that_closes_takes_an_abandoned_load_along(clock: Clock) -> None:
    """Others load anew."""
    cache = stale_cache(clock, soft_timeout=0)

    async def main() -> None:
        gate = AsyncGate("never")
        assert await cache.get_async("key", gate) == "old"
        await gate.entered.wait()

    run(main())
    assert cache.stats().loads_in_flight == 0
    assert cache.get("key", lambda: "new") in ("old", "new")
    until(lambda: cache.get("key") == "new")


@pytest.mark.parametrize("exit_", [SystemExit("bye"), KeyboardInterrupt()])
def test_an_exit_asked_for_by_a_loader_goes_to_the_caller_who_began(exit_: BaseException, clock: Clock) -> None:
    """Although it happened in a worker; it does not end the worker, and nobody tries for ever."""
    cache, source = new_cache(hard_timeout=5, clock=clock), Source(exit_)
    assert spawn(cache.get, "key", source).exception(TIMEOUT) is exit_
    assert source.calls == 1
    assert cache.stats().loads_in_flight == 0
    assert cache.get("key", lambda: "new") == "new"


def test_others_do_not_get_the_exit_of_somebody_elses_loader(clock: Clock) -> None:
    """They load with their own."""
    cache, gate = new_cache(hard_timeout=5, clock=clock), Gate(SystemExit("bye"))
    first = spawn(cache.get, "key", gate)
    passed(gate.entered)
    second = spawn(cache.get, "key", lambda: "new")
    until_waiting(cache, 1)
    gate.opened.set()
    assert isinstance(first.exception(TIMEOUT), SystemExit)
    assert second.result(TIMEOUT) == "new"


def test_an_exit_of_an_abandoned_load_is_nobodys(clock: Clock) -> None:
    """It ends neither a worker nor the next caller."""
    cache, gate = stale_cache(clock, soft_timeout=0), Gate(SystemExit("bye"))
    assert cache.get("key", gate) == "old"
    passed(gate.entered)
    gate.opened.set()
    until_idle(cache)
    cache.get("key", lambda: "new")
    until(lambda: cache.get("key") == "new")


def test_bug_an_interrupted_caller_took_the_load_of_all_others_along(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in a worker, which was not interrupted."""
    cache, gate = new_cache(hard_timeout=5, clock=clock), Gate("new")
    interrupt, real = threading.Event(), wait_in_thread
    interrupted = threading.local()

    def wait(*args: Any) -> None:
        if getattr(interrupted, "is_me", False):
            passed(interrupt)
            raise KeyboardInterrupt
        real(*args)

    def owner() -> Any:
        interrupted.is_me = True
        return cache.get("key", gate)

    monkeypatch.setattr(sharing, "wait_in_thread", wait)
    first = spawn(owner)
    passed(gate.entered)
    second = spawn(cache.get, "key", gate)
    until_waiting(cache, 1)
    interrupt.set()
    assert isinstance(first.exception(TIMEOUT), KeyboardInterrupt)
    gate.opened.set()
    assert second.result(TIMEOUT) == "new"
    assert gate.calls == 1


# --- where it runs -----------------------------------------------------------------------------------


def test_a_load_runs_in_a_worker_with_the_context_of_its_caller(clock: Clock) -> None:
    """So that its caller may go."""
    cache = new_cache(hard_timeout=5, clock=clock)
    TENANT.set("Ada")
    tenant, thread = cache.get("key", lambda: (TENANT.get(), threading.current_thread()))
    TENANT.set("nobody")
    assert tenant == "Ada"
    assert thread is not threading.current_thread()


def test_a_recursive_function_with_a_timeout(clock: Clock) -> None:
    """Deeper than there are workers."""

    @cached(hard_timeout=60, clock=clock)
    def count(number: int) -> int:
        return number and 1 + count(number - 1)

    assert count(2 * background.MAX_WORKERS) == 2 * background.MAX_WORKERS


def test_more_slow_loads_than_workers(clock: Clock) -> None:
    """Loads for callers who wait do not stand in line behind each other."""
    cache = new_cache(hard_timeout=60, clock=clock)
    count = background.MAX_WORKERS + 3
    together = threading.Barrier(count, timeout=TIMEOUT)
    asked = [spawn(cache.get, number, together.wait) for number in range(count)]
    assert sorted(results(asked)) == list(range(count))


def test_bug_loads_that_hung_took_a_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers give up after a moment, and what they leave behind hangs: the threads of such loads are limited."""
    monkeypatch.setattr(job, "_places", threading.Semaphore(5))
    clock, gate = ManualClock(), threading.Event()
    cache = new_cache(hard_timeout=1, clock=clock)
    before = threading.active_count()
    asked = [spawn(cache.get, number, lambda: gate.wait(TIMEOUT)) for number in range(40)]
    until(lambda: len(cache._flights) == 40)
    lent = [thread for thread in threading.enumerate() if thread.name == "otel-perfopt-lent"]
    assert len(lent) <= 5
    while not all(future.done() for future in asked):
        clock.advance(1)
    assert {type(future.exception()) for future in asked} == {LoadTimeout}
    gate.set()
    until(lambda: len(cache._flights) == 0)
    assert len(cache) == 40
    until(lambda: threading.active_count() <= before + background.MAX_WORKERS)


def test_a_load_that_asks_for_its_own_key_is_refused(callers: Callers, clock: Clock) -> None:
    """Not after the timeout, but at once."""
    cache = new_cache(hard_timeout=60, clock=clock)
    assert isinstance(callers.error(cache, lambda: cache.get("key", lambda: 1)), ReentrantLoad)


def test_bug_a_circle_through_a_load_in_a_worker_was_not_seen() -> None:
    """A thread waits for its worker, whose load waits for that of the thread; the context does not go along."""
    plain, behind = new_cache("plain"), new_cache("behind", stale_for=60, soft_timeout=1)

    def inner() -> Any:
        return contextvars.Context().run(plain.get, "outer", lambda: "never")

    def outer() -> Any:
        return contextvars.Context().run(behind.get, "inner", inner)

    assert isinstance(spawn(plain.get, "outer", outer).exception(TIMEOUT), ReentrantLoad)


def test_bug_a_load_with_a_timeout_needed_a_thread_that_could_not_be_had(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exit of the process, or when the system has none left: then the caller's thread does it."""

    def refuse(*_: object) -> None:
        raise background.NoThread("none left")

    monkeypatch.setattr(background, "submit", refuse)
    cache = new_cache(hard_timeout=5, clock=clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        assert cache.get("key", lambda: threading.current_thread()) is threading.main_thread()


def test_many_callers_at_once(clock: Clock) -> None:
    """One call, and all of them run out of time together."""
    cache, gate = new_cache(hard_timeout=1, clock=clock), Gate("new")
    asked = spawn_many(10, lambda: cache.get("key", gate))
    clock.until_set(10)
    clock.advance(1)
    assert {type(error) for error in errors(asked)} == {LoadTimeout}
    gate.opened.set()
    until(lambda: cache.get("key") == "new")
    assert gate.calls == 1


def test_real_time() -> None:
    """The deadline holds by the clock on the wall, too, for threads and for coroutines."""
    cache, gate = new_cache(hard_timeout="20ms"), Gate("new")
    with pytest.raises(LoadTimeout):
        cache.get("key", gate)
    with pytest.raises(LoadTimeout):
        run(cache.get_async("key", gate))
    gate.opened.set()
    until(lambda: cache.get("key") == "new")


def test_what_is_gone_is_gone_at_once(clock: Clock) -> None:
    """A cache whose callers ran out of time is kept by nothing when the load has ended."""
    with no_collection():
        cache, gate = new_cache(hard_timeout=1, clock=clock), Gate("new")
        asked = spawn(cache.get, "key", gate)
        passed(gate.entered)
        clock.until_set(1)
        clock.advance(1)
        assert isinstance(asked.exception(TIMEOUT), LoadTimeout)
        gate.opened.set()
        until_idle(cache)
        error = asked.exception()
        assert error is not None
        error.__traceback__ = None
        reference = weakref.ref(cache)
        del cache
        until(lambda: reference() is None)
