"""Conformance, what comes back and what does not: scenarios 15, 16, 21, 22, 27 and 31."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt.pool import AsyncResourcePool
from tests.cache.support import TIMEOUT, LoopThread, no_collection, spawn
from tests.pool.support import TaskWorld, Thing, ThreadWorld, World


class Plain:
    """A resource that nobody but its holder keeps alive."""


def test_15_double_release(world: World) -> None:
    """Scenario 15, I2: an error, and no second entry among what is idle."""
    pool = world.filled(max_size=2)
    thing = world.do(pool.acquire)
    world.call(pool.release, thing)
    for action in (pool.release, pool.destroy):
        with pytest.raises(ValueError, match=r"pool 'things' cannot \w+ <thing \d>: it was not acquired here, or was released"):
            world.call(action, thing)
    assert pool.stats().available == 2
    world.assert_full(pool)


def test_15_release_of_what_was_never_acquired(world: World) -> None:
    """Scenario 15: neither a stranger nor an idle resource can be returned."""
    pool = world.filled()
    for thing in (object(), None, *world.things):
        with pytest.raises(ValueError, match="it was not acquired here"):
            world.call(pool.release, thing)
    assert pool.stats().available == 1


def test_15_release_to_another_pool(world: World) -> None:
    """Scenario 15: the error names both pools, and the resource is still held."""
    pool, other = world.filled(), world.filled(name="others")
    thing = world.do(pool.acquire)
    with pytest.raises(ValueError, match=r"pool 'others' cannot release <thing 0>: it belongs to pool 'things'"):
        world.call(other.release, thing)
    assert (pool.stats().in_use, other.stats().in_use) == (1, 0)
    world.call(pool.release, thing)


def test_16_release_in_another_thread(threads: ThreadWorld) -> None:
    """Scenario 16: any thread may return what another one has acquired."""
    pool = threads.filled()
    thing = spawn(pool.acquire).result(TIMEOUT)
    waiter = threads.line(pool, 1, timeout=None)[0]
    spawn(pool.release, thing).result(TIMEOUT)
    assert threads.leave(threads.served(waiter)) is None


def test_16_release_in_another_task(tasks: TaskWorld) -> None:
    """Scenario 16: and any task of the loop."""
    pool = tasks.filled()
    tasks.call(pool.release, tasks.do(pool.acquire))
    tasks.assert_full(pool)


def test_16_release_from_outside_of_the_loop(name: str) -> None:
    """Scenario 16: a pool of tasks refuses other threads while its loop runs, and says what to do."""
    with LoopThread() as loop:
        pool = AsyncResourcePool(name, Plain, min_size=0)
        thing = loop.submit(pool.acquire()).result(TIMEOUT)
        actions: list[Callable[[], None]] = [
            lambda: pool.release(thing),
            lambda: pool.destroy(thing),
            pool.drain,
            lambda: pool.resize(3),
        ]
        for action in actions:
            with pytest.raises(
                RuntimeError, match=r"is used outside of its event loop; call it through loop\.call_soon_threadsafe"
            ):
                action()
        assert pool.stats().in_use == 1
        loop.call(lambda: pool.release(thing)).result(TIMEOUT)
        assert pool.stats().available == 1
        assert loop.submit(pool.close()).result(TIMEOUT) is True


@pytest.mark.parametrize("reason", ["lifetime", "drain", "resize"])
def test_21_resource_has_to_go_while_it_is_used(world: World, reason: str) -> None:
    """Scenario 21: it goes when it is returned, and is replaced if it was needed for the floor."""
    pool = world.filled(min_size=1, max_size=2, max_lifetime=100)
    callers = [world.served(world.lease(pool)) for _ in range(2)]
    if reason == "lifetime":
        world.clock.advance(101)
    elif reason == "drain":
        world.call(pool.drain)
    else:
        world.call(pool.resize, 1)
    world.settle()
    assert [caller.thing.ends for caller in callers] == [0, 0]
    assert [world.leave(caller) for caller in callers] == [None, None]
    gone = 1 if reason == "resize" else 2
    world.until(lambda: sum(caller.thing.ends for caller in callers) == gone)
    assert pool.stats().destroyed == {reason: gone}
    world.until(lambda: pool.stats().available == 1)


def test_22_borrower_is_faster_than_the_evictor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 22: what somebody has just taken is not ended."""
    pool = world.filled(idle_timeout=100)
    core, taken = pool._core, list[Any]()
    claim = core._claim

    def claim_late(slot: Any) -> bool:
        from otel_perfopt._core.slots import Hold

        hold: Any = Hold()
        taken.append(core.take(world.clock(), hold))
        return bool(claim(slot))

    monkeypatch.setattr(core, "_claim", claim_late)
    world.clock.advance(101)
    world.settle()
    monkeypatch.undo()
    assert taken == [True]
    assert world.things[0].ends == 0
    (lease,) = core.lent
    core.rest(world.clock(), core.lent.pop(lease))
    world.assert_full(pool)


def test_22_evictor_is_faster_than_the_borrower(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 22: who comes too late gets another one, and not an error."""
    pool = world.filled(idle_timeout=100)
    core = pool._core
    get = core._get

    def get_late() -> Any:
        monkeypatch.setattr(core, "_get", get)
        world.clock._now = 2000.0
        pool._sweep()
        return get()

    monkeypatch.setattr(core, "_get", get_late)
    caller = world.served(world.lease(pool, timeout=None))
    assert caller.thing is world.things[1]
    assert world.leave(caller) is None
    world.until(lambda: world.things[0].ends == 1)


def test_22_floor_is_kept(world: World) -> None:
    """Scenario 22: whatever is evicted, `min_size` resources stay, or come back by themselves."""
    pool = world.filled(min_size=2, max_size=4, idle_timeout=100, max_lifetime=1000)
    world.clock.advance(101)
    world.until(lambda: sum(thing.ends for thing in world.things) == 2)
    assert (pool.stats().available, pool.stats().destroyed) == (2, {"idle": 2})
    world.in_time(lambda: pool.stats().destroyed.get("lifetime") == 2, within=1000, step=10)
    world.until(lambda: pool.stats().available == 2)
    assert len(world.things) == 6


@pytest.mark.parametrize("how", ["acquired", "leased", "not weakly referable"])
def test_27_resource_is_collected_while_it_is_held(world: World, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """Scenario 27: there is a warning with the place where it was acquired, and its place in the pool is free."""
    pool = world.pool(factory=(lambda: (Plain(),)) if how == "not weakly referable" else Plain)

    async def forget_async() -> None:
        await pool.acquire() if how == "acquired" else await pool.lease().__aenter__()

    def forget() -> None:
        pool.acquire() if how == "acquired" else pool.lease().__enter__()

    world.do(forget if isinstance(world, ThreadWorld) else forget_async)
    gc.collect()
    world.in_time(lambda: pool.stats().leaks == 1, within=1)
    world.until(lambda: "a resource was dropped without being released" in caplog.text)
    assert "test_conformance_returning.py" in caplog.text
    assert "in test_27_resource_is_collected_while_it_is_held.<locals>.forget" in caplog.text
    assert pool.stats().destroyed == {"lost": 1}
    world.assert_full(pool)


def test_27_lost_resource_is_disposed_of_if_that_is_possible(threads: ThreadWorld) -> None:
    """Scenario 27: a lease that was forgotten still has its resource, which is not left open."""
    pool = threads.pool()
    with no_collection():
        pool.lease().__enter__()
        threads.in_time(lambda: [thing.ends for thing in threads.things] == [1], within=1)


def test_27_collected_under_the_lock(threads: ThreadWorld) -> None:
    """Scenario 27: a finalizer may run in the middle of a change of the state, and in a thread that must not wait for it."""
    pool = threads.pool(factory=Plain, max_size=2)
    held = [pool.acquire(), pool.acquire()]
    with pool._lock:
        held.pop()  # in the thread that changes something
        spawn(held.pop).result(TIMEOUT)  # and in another one
    threads.in_time(lambda: pool.stats().leaks == 2, within=1)
    threads.assert_full(pool)


def test_27_waiter_is_served_when_something_is_collected(world: World) -> None:
    """Scenario 27, I4: that is freed capacity, too."""
    pool = world.pool(factory=Plain)
    thing = world.do(pool.acquire)
    waiter = world.line(pool, 1, timeout=None)[0]
    del thing
    gc.collect()
    world.in_time(lambda: waiter.thing is not None, within=1)
    assert world.leave(waiter) is None


def test_31_resize_down(world: World) -> None:
    """Scenario 31: what is idle goes at once, what is held when it is returned."""
    pool = world.filled(max_size=4)
    holders = [world.served(world.lease(pool)) for _ in range(3)]
    world.call(pool.resize, 2)
    world.until(lambda: sum(thing.ends for thing in world.things) == 1)
    assert [world.leave(holder) for holder in holders] == [None] * 3
    world.until(lambda: sum(thing.ends for thing in world.things) == 2)
    assert pool.stats().destroyed == {"resize": 2}
    world.assert_full(pool)


def test_31_nobody_is_served_beyond_the_new_size(world: World) -> None:
    """Scenario 31: who waits does so until there is room."""
    pool = world.filled(max_size=2)
    first, second = [world.served(world.lease(pool)) for _ in range(2)]
    world.call(pool.resize, 1)
    waiter = world.line(pool, 1, timeout=None)[0]
    assert world.leave(first) is None
    assert (waiter.thing, pool.stats().waiting) == (None, 1)
    assert world.leave(second) is None
    assert world.served(waiter).thing is second.thing
    assert world.leave(waiter) is None


def test_31_resize_up(world: World) -> None:
    """Scenario 31, I4: there is room now for those who wait."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    line = world.line(pool, 2, timeout=None)
    world.call(pool.resize, 3)
    assert [world.leave(world.served(caller)) for caller in line] == [None, None]
    assert world.leave(holder) is None
    world.assert_full(pool)


def test_16_release_while_the_loop_is_at_rest(name: str) -> None:
    """Scenario 16, the edge: between two runs of its loop, a pool of tasks may be used from outside."""
    loop = asyncio.new_event_loop()
    try:
        pool = AsyncResourcePool(name, lambda: Thing(0, []), min_size=0)
        thing = loop.run_until_complete(pool.acquire())
        pool.release(thing)
        assert pool.stats().available == 1
        assert loop.run_until_complete(pool.close()) is True
    finally:
        loop.close()
