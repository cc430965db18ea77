"""Conformance, creation: scenarios 5, 8-10, 24, 25 and 33."""

import asyncio
from typing import Any

import pytest

from otel_perfopt._core.pool import STUCK
from otel_perfopt.errors import PoolClosed, PoolTimeout
from tests.pool.support import PATIENCE, TaskWorld, ThreadWorld, World, raising

ERRORS = [OSError("down"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()]


def test_05_caller_gives_up_during_creation(world: World) -> None:
    """Scenario 5, I9: the creation goes on, and serves the next caller."""
    world.factory.hold()
    pool = world.pool()
    world.abandon(world.line(pool, 1)[0])
    assert (pool.stats().creating, pool.stats().waiting) == (1, 0)
    waiter = world.line(pool, 1, timeout=None)[0]
    world.factory.let_go()
    assert world.served(waiter).thing is world.things[0]
    assert world.leave(waiter) is None
    assert (world.factory.calls, pool.stats().total_created, pool.stats().available) == (1, 1, 1)


def test_05_nobody_is_left_when_it_is_created(world: World) -> None:
    """Scenario 5: what comes then is idle."""
    world.factory.hold()
    pool = world.pool()
    world.abandon(world.line(pool, 1)[0])
    world.factory.let_go()
    world.until(lambda: pool.stats().available == 1)
    world.assert_full(pool)


def test_05_pool_is_closed_when_it_is_created(world: World) -> None:
    """Scenario 5: what comes then is disposed of."""
    world.factory.hold()
    pool = world.pool()
    world.abandon(world.line(pool, 1)[0])
    closing = world.start(pool.close, timeout=None)
    world.until(lambda: pool.is_closed)
    world.factory.let_go()
    world.until(closing.done)
    assert closing.result() is True
    assert [thing.ends for thing in world.things] == [1]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_08_factory_raises(world: World, error: BaseException) -> None:
    """Scenario 8, I4: the requester gets the error before its deadline, and the next waiter is served by another attempt."""
    world.factory.hold()
    world.factory.does = raising(error)
    pool = world.pool()
    first, second = world.line(pool, 2, timeout=None)
    world.until(lambda: world.factory.held == 1)
    world.factory.let_go(1)
    if isinstance(world, TaskWorld) and isinstance(error, KeyboardInterrupt | SystemExit):
        with pytest.raises(type(error)):  # raised by the caller's task, it leaves the loop as well
            world.outcome(first)
    assert world.outcome(first) is error
    world.factory.does = world.make
    world.factory.let_go()
    world.in_time(lambda: second.thing is not None, within=1)
    assert world.leave(second) is None
    assert pool.stats().creating == 0
    world.assert_full(pool)


def test_08_each_gets_the_error_as_long_as_nothing_ever_worked(world: World) -> None:
    """Scenario 8: a pool whose factory is wrong tells everybody, one after the other, long before the deadline."""
    world.factory.does = raising(OSError("no such host"))
    pool = world.pool(max_size=3)
    callers = [world.lease(pool, timeout=None) for _ in range(3)]
    world.in_time(lambda: all(caller.future.done() for caller in callers), within=30)
    assert [repr(world.outcome(caller)) for caller in callers] == ["OSError('no such host')"] * 3
    world.factory.does = world.make
    world.assert_full(pool)


def test_08_factory_raises_after_it_has_worked(world: World) -> None:
    """Scenario 8: then it is tried again until the deadline, whose error has the factory's last one as its cause."""
    pool = world.pool()
    world.leave(world.served(world.lease(pool)))
    world.call(pool.drain)
    down = OSError("down")
    world.factory.does = raising(down)
    waiter = world.line(pool, 1)[0]
    world.in_time(waiter.future.done, within=PATIENCE, step=0.1)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    assert error.__cause__ is down
    assert "The factory has failed" in str(error)
    assert world.factory.calls > 3
    world.factory.does = world.make
    world.assert_full(pool)


def test_09_factory_hangs(world: World) -> None:
    """Scenario 9, I7: the deadline bounds it, it counts as being created, and what comes late is kept."""
    world.factory.hold()
    pool = world.pool()
    waiter = world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    assert "Of at most 1, 0 are held, 0 idle, 1 being created, 0 being validated or reset" in str(error)
    assert (pool.stats().creating, pool.stats().in_use, pool.stats().timeouts) == (1, 0, 1)
    world.factory.let_go()
    world.until(lambda: pool.stats().available == 1)
    world.assert_full(pool)
    assert world.factory.calls == 1


def test_09_others_need_not_wait_for_what_hangs(world: World) -> None:
    """Scenario 9: beside a creation that hangs, another one is begun."""
    world.factory.hold()
    pool = world.pool(max_size=2)
    world.abandon(world.line(pool, 1)[0])
    world.clock.advance(STUCK)
    waiter = world.line(pool, 1, timeout=None)[0]
    world.until(lambda: world.factory.held == 2)
    world.factory._inside.rotate()  # the first one goes on to hang
    world.factory.let_go(1)
    assert world.leave(world.served(waiter)) is None
    assert pool.stats().creating == 1


def test_09_callers_who_give_up_do_not_make_the_pool_grow(world: World) -> None:
    """Scenario 9, the other side: what only takes its time is waited for, however many have given up meanwhile."""
    world.factory.hold()
    pool = world.pool(max_size=10)
    world.abandon(*world.line(pool, 10))
    world.line(pool, 1)
    assert world.factory.calls == pool.stats().creating == 1


def test_10_factory_returns_none(world: World) -> None:
    """Scenario 10: that is no resource."""
    pool = world.pool(factory=world.step(lambda: None))
    with pytest.raises(TypeError, match="the factory of pool 'things' returned None; it must return a resource"):
        world.do(pool.acquire)
    assert (pool.stats().total_created, pool.stats().creating) == (0, 0)


def test_10_factory_returns_the_same_object_twice(world: World) -> None:
    """Scenario 10, I3: nobody gets what another one holds."""
    thing = world.make()
    pool = world.pool(factory=world.step(lambda: thing), max_size=2)
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1)[0]
    world.in_time(waiter.future.done, within=PATIENCE)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "the factory of pool 'things' returned <thing 0> again; it must make a new resource"
    assert world.leave(holder) is None
    assert pool.stats().available == 1


def test_24_spike(world: World) -> None:
    """Scenario 24: 50 callers who need little time, while creation takes much, do not make 50 resources."""
    world.factory.hold()
    pool = world.pool(max_size=50)
    callers = world.line(pool, 50, timeout=None)
    world.until(lambda: world.factory.held == 1)
    assert pool.stats().creating == 1
    for caller in callers:
        caller.is_over.set()  # they leave as soon as they have come
    world.factory.let_go(1)
    assert [world.outcome(caller) for caller in callers] == [None] * 50
    assert world.factory.calls <= 3
    assert len({caller.thing for caller in callers}) == 1


def test_24_demand_that_lasts(world: World) -> None:
    """Scenario 24, the other side: callers who keep what they get have the pool grow to its limit, faster and faster."""
    pool, together = world.pool(max_size=20), list[int]()
    world.factory.hold()
    callers = world.line(pool, 20, timeout=None)
    while len(world.things) < 20:
        world.until(lambda: pool.stats().creating == world.factory.held > 0)
        together.append(world.factory.held)
        ready = len(world.things) + world.factory.held
        world.factory.let_go(world.factory.held)
        world.until(lambda ready=ready: pool.stats().total_created == ready)  # type: ignore[misc]
    assert together[:3] == [1, 2, 4]
    assert len(together) <= 6
    assert [world.leave(world.served(caller)) for caller in callers] == [None] * 20


def test_25_all_are_dead_at_once(world: World) -> None:
    """Scenario 25: one attempt at a time with growing pauses, deadlines with the last error, and recovery by itself."""
    validate = world.step(lambda thing: True)
    pool = world.filled(max_size=5, validate=validate)
    most = attempts = 0

    def fail(*_: Any) -> None:
        nonlocal most, attempts
        attempts += 1
        most = max(most, pool.stats().creating)
        raise OSError(f"refused {attempts}")

    validate.does, world.factory.does = raising(OSError("reset by peer")), fail
    callers = [world.lease(pool, timeout=30.0) for _ in range(8)]
    world.in_time(lambda: all(caller.future.done() for caller in callers), within=31, step=0.25)
    errors = [world.outcome(caller) for caller in callers]
    assert {type(error) for error in errors} == {PoolTimeout}
    assert all(isinstance(error.__cause__, OSError) for error in errors if error is not None)
    assert most == 1
    assert 5 <= attempts <= 40
    assert pool.stats().destroyed == {"invalid": 5}
    validate.does, world.factory.does = (lambda thing: True), world.make
    world.assert_full(pool)


def test_25_recovery_needs_no_new_caller(world: World) -> None:
    """Scenario 25: those who wait are served when the factory works again, before their deadlines."""
    pool = world.filled(max_size=2)
    world.call(pool.drain)
    world.factory.does = raising(OSError("down"))
    line = world.line(pool, 3, timeout=None)
    world.in_time(lambda: world.factory.calls >= 8)
    world.factory.does = world.make
    world.in_time(lambda: line[1].thing is not None)
    assert [world.leave(world.served(caller)) for caller in line] == [None] * 3


def test_33_factory_wants_a_resource_of_its_own_pool(world: World) -> None:
    """Scenario 33: no dead-lock beyond the deadline of the inner caller, whose error reaches the outer one."""

    def inside() -> None:
        with pool.lease(timeout=PATIENCE):
            pass

    async def inside_async() -> None:
        async with pool.lease(timeout=PATIENCE):
            pass

    pool = world.pool(factory=inside if isinstance(world, ThreadWorld) else inside_async)
    outer = world.lease(pool, timeout=None)
    world.until(lambda: pool.stats().waiting == 2)
    world.clock.advance(PATIENCE)
    error = world.outcome(outer)
    assert isinstance(error, PoolTimeout)
    assert "1 being created" in str(error)
    pool._factory = world.factory
    world.assert_full(pool)


def test_33_pool_is_closed_by_its_factory(threads: ThreadWorld) -> None:
    """Scenario 33: a factory may use its pool in any way."""

    def close() -> Any:
        pool.close(timeout=0)
        return threads.make()

    pool = threads.pool(factory=close)
    with pytest.raises(PoolClosed):
        pool.acquire(timeout=None)
