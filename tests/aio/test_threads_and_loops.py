"""Threads and event loops together: they share loads, and a loop that ends takes nobody along."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from otel_perfopt.single_flight import waiting
from tests.cache.support import (
    TIMEOUT,
    AsyncGate,
    Gate,
    LoopThread,
    new_cache,
    passed,
    results,
    run,
    spawn,
    spawn_many,
    until,
    until_async,
    until_waiting,
)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have those who wait find out soon that a loop has stopped."""
    monkeypatch.setattr(waiting, "STALL_CHECK", 0.02)


def test_threads_and_two_loops_share_a_load_of_a_thread() -> None:
    """Eleven callers from everywhere join it, and all get its value."""
    cache, gate = new_cache(), Gate()
    with LoopThread() as one, LoopThread() as two:
        futures: list[Any] = [spawn(cache.get, "key", gate)]
        passed(gate.entered)
        futures += spawn_many(3, lambda: cache.get("key", gate))
        futures += [loop.submit(cache.get_async("key", gate)) for loop in (one, two) for _ in range(4)]
        until_waiting(cache, 11)
        gate.opened.set()
        assert results(futures) == ["value"] * 12
    assert (gate.calls, cache.stats().miss_count) == (1, 12)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("outcome", ["value", OSError("down")])
def test_threads_and_two_loops_share_a_load_of_a_loop(plain: bool, outcome: object) -> None:
    """The same for a load that a coroutine started, by a coroutine function or in a worker."""
    cache = new_cache()
    with LoopThread() as one, LoopThread() as two:
        gate: Any = Gate(outcome) if plain else one.call(lambda: AsyncGate(outcome)).result(TIMEOUT)
        futures: list[Any] = [one.submit(cache.get_async("key", gate))]
        until(gate.entered.is_set)
        futures += spawn_many(3, lambda: cache.get("key", lambda: "never called"))
        futures += [loop.submit(cache.get_async("key", lambda: "never called")) for loop in (one, two) for _ in range(4)]
        until_waiting(cache, 11)
        one.call(gate.opened.set).result(TIMEOUT)
        if isinstance(outcome, Exception):
            assert [future.exception(TIMEOUT) for future in futures] == [outcome] * 12
        else:
            assert results(futures) == [outcome] * 12
    assert gate.calls == 1


def test_a_leader_cancelled_on_one_loop_serves_another() -> None:
    """The load runs on in its loop for a waiter of another."""
    cache = new_cache()
    with LoopThread() as one, LoopThread() as two:
        gate: Any = one.call(AsyncGate).result(TIMEOUT)
        leader = one.submit(cache.get_async("key", gate))
        until(gate.entered.is_set)
        follower = two.submit(cache.get_async("key", gate))
        thread = spawn(cache.get, "key", lambda: "never called")
        until_waiting(cache, 2)
        leader.cancel()
        until_waiting(cache, 1)
        one.call(gate.opened.set).result(TIMEOUT)
        assert follower.result(TIMEOUT) == thread.result(TIMEOUT) == "value"
    assert gate.calls == 1


def test_the_last_waiter_cancels_a_load_of_another_loop() -> None:
    """When its own caller has left before, the load ends with the caller on the other loop."""
    cache = new_cache()
    with LoopThread() as one, LoopThread() as two:
        gate: Any = one.call(AsyncGate).result(TIMEOUT)
        leader = one.submit(cache.get_async("key", gate))
        until(gate.entered.is_set)
        follower = two.submit(cache.get_async("key", gate))
        until_waiting(cache, 1)
        leader.cancel()
        until_waiting(cache, 0)
        follower.cancel()
        until(lambda: gate.cancelled == 1)
        until(lambda: cache.stats().loads_in_flight == 0)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_a_loop_that_stops_leaves_nobody_waiting(close: bool, plain: bool) -> None:
    """Its load ends with it: threads and other loops that wait for it load by themselves."""
    cache, stopping = new_cache(), LoopThread()
    stopping.__enter__()
    gate: Any = Gate() if plain else stopping.call(AsyncGate).result(TIMEOUT)
    stopping.submit(cache.get_async("key", gate))
    until(gate.entered.is_set)
    with LoopThread() as other:
        futures: list[Any] = [spawn(cache.get, "key", lambda: "by itself")]
        futures += [other.submit(cache.get_async("key", lambda: "by itself"))]
        until_waiting(cache, 2)
        stopping.stop()
        if close:
            _drop_tasks(stopping.loop)
            stopping.loop.close()
        assert results(futures) == ["by itself"] * 2
        assert spawn(cache.get, "key", lambda: "never called").result(TIMEOUT) == "by itself"
    if plain:
        gate.opened.set()
    _drop_tasks(stopping.loop)
    stopping.__exit__()


def _drop_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Keep asyncio from complaining about tasks that this test leaves pending on purpose."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("in_loop", [False, True])
def test_nobody_joins_a_load_whose_loop_has_stopped(close: bool, in_loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that leaves a load pending in a loop that it ran, and then calls the cache from elsewhere, does not hang."""
    monkeypatch.setattr(waiting, "STALL_CHECK", 1000)  # seen before anybody waits
    cache, loop = new_cache(), asyncio.new_event_loop()

    async def begin() -> tuple[AsyncGate, "asyncio.Task[Any]"]:
        gate = AsyncGate("loop's")
        task = asyncio.create_task(cache.get_async("key", gate))
        await gate.entered.wait()
        return gate, task

    gate, task = loop.run_until_complete(begin())
    if close:
        _drop_tasks(loop)
        loop.close()
    if in_loop:
        assert run(cache.get_async("key", lambda: "thread's")) == "thread's"
    else:
        assert cache.get("key", lambda: "thread's") == "thread's"
    if not close:
        gate.opened.set()
        assert loop.run_until_complete(task) == "loop's"  # whoever waits in the loop still gets the value
        loop.close()
    assert cache.get("key") == "thread's"
    assert cache.stats().loads_in_flight == 0


def test_a_loop_that_ends_regularly_wakes_everybody() -> None:
    """`asyncio.run` cancels what is pending at its end; a thread that waited loads by itself, nothing is left behind."""
    cache, joined = new_cache(), threading.Event()
    gates: list[AsyncGate] = []
    tasks: list[Any] = []

    async def main() -> None:
        gates.append(AsyncGate())
        tasks.append(asyncio.create_task(cache.get_async("key", gates[0])))
        await gates[0].entered.wait()
        await until_async(joined.is_set)

    runner = spawn(lambda: asyncio.run(main()))
    until(lambda: bool(gates) and gates[0].entered.is_set())
    waiter = spawn(cache.get, "key", lambda: "by itself")
    until_waiting(cache, 1)
    joined.set()
    runner.result(TIMEOUT)
    assert waiter.result(TIMEOUT) == "by itself"
    assert gates[0].cancelled == 1
    assert cache.stats().loads_in_flight == 0


def test_a_new_loop_for_every_call_works() -> None:
    """Nothing of a cache belongs to one loop."""
    cache = new_cache(max_size=4)

    async def load(number: int) -> int:
        await asyncio.sleep(0)
        return number

    for number in range(30):
        assert asyncio.run(cache.get_async(number % 6, partial(load, number % 6))) == number % 6


def test_a_loop_inside_a_load_of_a_thread_works() -> None:
    """A loader may run a loop of its own, which uses the same cache."""
    cache = new_cache()
    value = cache.get("outer", lambda: asyncio.run(cache.get_async("inner", lambda: "inner")))
    assert value == "inner"


def test_an_invalidation_in_a_thread_reaches_a_load_on_a_loop() -> None:
    """A coroutine's load that was overtaken stores nothing, and later callers do not join it."""
    cache = new_cache()
    with LoopThread() as loop:
        gate: Any = loop.call(lambda: AsyncGate("old")).result(TIMEOUT)
        before = loop.submit(cache.get_async("key", gate))
        until(gate.entered.is_set)
        cache.delete("key")
        assert cache.get("key", lambda: "new") == "new"
        loop.call(gate.opened.set).result(TIMEOUT)
        assert before.result(TIMEOUT) == "old"
    assert cache.get("key") == "new"


def test_a_storm_from_threads_and_loops_ends_with_right_values() -> None:
    """Threads, and coroutines on three loops, load, set, delete and cancel: every value belongs to its key."""
    cache, keys = new_cache(max_size=8), range(12)
    loops = [LoopThread() for _ in range(3)]

    async def load(key: int) -> int:
        await asyncio.sleep(0)
        return key

    async def coroutine_user(seed: int) -> int:
        wrong = 0
        for step in range(150):
            key = (seed + step * 5) % len(keys)
            call = cache.get_async(key, partial(load, key) if step % 2 else lambda key=key: key)
            if step % 7 == 0:
                task = asyncio.create_task(call)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            else:
                wrong += await call != key
            if step % 11 == 0:
                cache.delete(key)
        return wrong

    def thread_user(seed: int) -> int:
        wrong = 0
        for step in range(300):
            key = (seed + step * 7) % len(keys)
            wrong += cache.get(key, lambda key=key: key) != key
            if step % 13 == 0:
                cache.clear() if step % 2 else cache.set(key, key)
        return wrong

    for loop in loops:
        loop.__enter__()
    futures: list[Any] = [loop.submit(coroutine_user(seed)) for loop in loops for seed in range(4)]
    futures += [spawn(thread_user, seed) for seed in range(4)]
    assert results(futures) == [0] * len(futures)
    until(lambda: cache.stats().loads_in_flight == 0)
    for loop in loops:
        loop.__exit__()
    assert len(cache) <= 8
    assert len(cache._store.policy) == len(cache)
