"""Conformance, the line: scenarios 1-3, 23, 26, 28, 30 and 32."""

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt.errors import PoolFull, PoolTimeout
from otel_perfopt.telemetry import clocks
from tests.cache.support import TIMEOUT, spawn, until
from tests.pool.support import PATIENCE, Caller, TaskWorld, ThreadWorld, World

INTERRUPTIONS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit]


def test_01_waiter_cancelled_while_queued(world: World) -> None:
    """Scenario 1: who gives up is out of the line at once, and the next one in it is served."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    leaver = world.line(pool, 1)[0]
    (patient,) = world.line(pool, 1, timeout=None)
    world.begin_to_abandon(leaver)
    assert isinstance(world.outcome(leaver), world.abandoned)
    assert pool.stats().waiting == 1
    world.leave(holder)
    assert world.served(patient).thing is holder.thing
    assert world.leave(patient) is None
    world.assert_full(pool)


def test_01_waiter_interrupted_while_queued(threads: ThreadWorld) -> None:
    """Scenario 1: Ctrl-C while the main thread waits."""
    pool = threads.filled()
    holder = threads.served(threads.lease(pool))
    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        until(lambda: pool.stats().waiting == 1)
        signal.pthread_kill(main, signal.SIGINT)

    signalled = spawn(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.acquire(timeout=None)
    signalled.result(TIMEOUT)
    assert pool.stats().waiting == 0
    threads.leave(holder)
    threads.assert_full(pool)


@pytest.mark.parametrize("order", ["release first", "cancel first"])
@pytest.mark.parametrize("is_next", [True, False])
def test_02_waiter_cancelled_as_it_is_served(tasks: TaskWorld, order: str, is_next: bool) -> None:
    """Scenario 2: the resource goes to the next, or is idle, and the cancellation gets through."""
    pool = tasks.filled()
    thing = tasks.do(pool.acquire)
    cancelled, *others = tasks.line(pool, 1 + is_next)

    def both() -> None:
        steps: list[Callable[[], Any]] = [lambda: pool.release(thing), cancelled.future.cancel]
        for step in steps if order == "release first" else reversed(steps):
            step()

    tasks.call(both)
    assert isinstance(tasks.outcome(cancelled), asyncio.CancelledError)
    for other in others:
        assert tasks.served(other).thing is thing
        assert tasks.leave(other) is None
    assert pool.stats().available == 1
    tasks.assert_full(pool)


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_02_waiter_interrupted_as_it_is_served(
    threads: ThreadWorld, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    """Scenario 2 for threads: the interruption comes when the resource is there, and was not noticed yet."""
    pool = threads.filled()
    thing = pool.acquire()
    block = clocks.block

    def block_and_fail(*args: Any) -> None:
        block(*args)
        raise interruption

    monkeypatch.setattr(clocks, "block", block_and_fail)
    waiter = threads.line(pool, 1)[0]
    monkeypatch.undo()
    pool.release(thing)
    assert isinstance(threads.outcome(waiter), interruption)
    assert pool.stats().available == 1
    threads.assert_full(pool)


@pytest.mark.parametrize("order", ["release first", "deadline first", "deadline noticed first"])
def test_03_deadline_in_the_tick_of_the_hand_over(tasks: TaskWorld, order: str) -> None:
    """Scenario 3: who has been given a resource in time has it, though its time is over when it notices."""
    pool = tasks.filled()
    thing = tasks.do(pool.acquire)
    waiter = tasks.line(pool, 1)[0]

    async def both() -> None:
        if order == "release first":
            pool.release(thing)
        tasks.clock.advance(PATIENCE)
        if order == "deadline noticed first":
            await asyncio.sleep(0)  # the waiter is about to run
        if order != "release first":
            pool.release(thing)

    tasks.runner.run(both())
    assert tasks.served(waiter).thing is thing
    assert pool.stats().timeouts == 0
    assert tasks.leave(waiter) is None
    tasks.assert_full(pool)


def test_03_deadline_at_the_moment_of_the_hand_over(threads: ThreadWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 3 for threads: the resource comes between the end of the waiting and the look at what has come."""
    pool = threads.filled()
    thing = pool.acquire()
    block = clocks.block

    def block_and_release(*args: Any) -> None:
        block(*args)
        pool.release(thing)

    monkeypatch.setattr(clocks, "block", block_and_release)
    waiter = threads.line(pool, 1)[0]
    monkeypatch.undo()
    threads.clock.advance(PATIENCE)
    assert threads.served(waiter).thing is thing
    assert pool.stats().timeouts == 0
    assert threads.leave(waiter) is None
    threads.assert_full(pool)


def test_03_deadline_before_the_hand_over(world: World) -> None:
    """Scenario 3, the other outcome: who was too late has an error, and the resource is idle."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    assert isinstance(world.outcome(waiter), PoolTimeout)
    world.leave(holder)
    assert (pool.stats().available, pool.stats().timeouts) == (1, 1)
    world.assert_full(pool)


def test_23_newcomer_and_waiter(world: World) -> None:
    """Scenario 23: who returns a resource and wants one again at once stands behind those who wait."""
    pool = world.filled()
    thing = world.do(pool.acquire)
    waiter = world.line(pool, 1)[0]
    world.call(pool.release, thing)
    with pytest.raises(PoolTimeout):
        world.do(pool.acquire, timeout=0)
    assert world.served(waiter).thing is thing
    assert world.leave(waiter) is None


def test_23_order_of_the_line(world: World) -> None:
    """Scenario 23, I5: those who wait are served in the order in which they came, whoever gives up in between."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    first, *others = world.line(pool, 4, timeout=None)
    served: list[Caller] = []
    world.leave(holder)
    for number, caller in enumerate([first, *others]):
        world.served(caller)
        served.append(caller)
        assert [other.thing for other in others[number:]] == [None] * (3 - number)
        world.leave(caller)
    assert served == [first, *others]


def test_26_line_is_full(world: World) -> None:
    """Scenario 26: one too many is refused at once, and those whose time is over do not count any more."""
    pool = world.filled(max_waiting=2)
    holder = world.served(world.lease(pool))
    line = world.line(pool, 2)
    with pytest.raises(PoolFull, match="all 1 resources of pool 'things' are in use and 2 callers wait, max_waiting=2"):
        world.do(pool.acquire, timeout=None)
    assert pool.stats().rejected == 1
    world.clock.advance(PATIENCE)
    assert all(isinstance(world.outcome(caller), PoolTimeout) for caller in line)
    line = world.line(pool, 2, timeout=None)
    world.leave(holder)
    assert [world.leave(world.served(caller)) for caller in line] == [None, None]


def test_26_those_who_left_do_not_count(world: World) -> None:
    """Scenario 26: neither do those who gave up."""
    pool = world.filled(max_waiting=1)
    holder = world.served(world.lease(pool))
    for _ in range(3):
        world.abandon(world.line(pool, 1)[0])
    assert (pool.stats().rejected, pool.stats().waiting) == (0, 0)
    world.leave(holder)


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_28_interrupted_between_popped_and_noted(
    world: World, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    """Scenario 28: an exit or interruption when a resource has been taken, and nobody knows that yet."""
    pool = world.filled()

    def fail(*_: object) -> None:
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_note", fail)
        caller = world.lease(pool)
        if interruption in (KeyboardInterrupt, SystemExit) and isinstance(world, TaskWorld):
            with pytest.raises(interruption):  # out of the loop
                world.outcome(caller)
        assert isinstance(world.outcome(caller), interruption)
    assert pool.stats().available == 1
    world.assert_full(pool)


@pytest.mark.parametrize("interruption", INTERRUPTIONS[:3])
def test_28_interrupted_while_it_is_used(world: World, interruption: type[BaseException]) -> None:
    """Scenario 28: the same inside of the block."""
    pool = world.filled()
    caller = world.served(world.lease(pool))
    error = interruption()
    if isinstance(world, TaskWorld) and interruption is not asyncio.CancelledError:
        with pytest.raises(interruption):  # out of the loop
            world.leave(caller, error)
    assert isinstance(world.leave(caller, error), interruption)
    assert pool.stats().available == 1
    world.assert_full(pool)


def test_30_clock_is_monotonic(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 30: deadlines and ages do not notice a wall clock that jumps."""
    assert inspect.signature(world.kind).parameters["clock"].default is time.monotonic
    pool = world.filled(idle_timeout=100, max_lifetime=1000)
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1)[0]
    monkeypatch.setattr(time, "time", lambda: 1e12)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    world.settle()
    assert pool.stats().waiting == 1
    world.leave(holder)
    assert world.leave(world.served(waiter)) is None
    assert pool.stats().destroyed == {}


def test_32_nested_acquire(world: World) -> None:
    """Scenario 32: who waits for itself is told so at its deadline."""
    pool = world.filled()

    def both_threads() -> None:
        with pool.lease(), pool.lease(timeout=PATIENCE):
            pass

    async def both_tasks() -> None:
        async with pool.lease(), pool.lease(timeout=PATIENCE):
            pass

    future = world.start(both_threads if isinstance(world, ThreadWorld) else both_tasks)
    world.until(lambda: pool.stats().waiting == 1)
    world.clock.advance(PATIENCE)
    world.until(future.done)
    with pytest.raises(PoolTimeout, match=r"which is the caller itself, acquired at .*_waiting.py:\d+ in .*both_"):
        future.result()
    world.assert_full(pool)
