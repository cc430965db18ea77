"""Conformance, validation, reset and disposal: scenarios 4, 6, 7 and 11-14."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt.errors import PoolTimeout
from tests.pool.support import PATIENCE, TaskWorld, ThreadWorld, World, raising

ERRORS = [OSError("broken"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()]


class Undecided:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


def test_04_caller_gives_up_during_validation(world: World) -> None:
    """Scenario 4: at once, not when the validator is done, and the resource is there for the next one."""
    validate = world.step(lambda thing: True)
    pool = world.filled(validate=validate)
    validate.hold()
    world.abandon(world.line(pool, 1)[0])
    assert (pool.stats().waiting, pool.stats().available, pool.stats().in_use) == (0, 0, 1)
    world.until(lambda: validate.held == 1)
    validate.let_go()
    world.until(lambda: pool.stats().available == 1)
    world.assert_full(pool)
    assert world.factory.calls == 1


def test_04_next_waiter_profits_from_the_validation(world: World) -> None:
    """Scenario 4: what was validated for one who has gone is given to the next."""
    validate = world.step(lambda thing: True)
    pool = world.filled(validate=validate)
    validate.hold()
    world.abandon(world.line(pool, 1)[0])
    waiter = world.line(pool, 1, timeout=None)[0]
    world.until(lambda: validate.held == 1)
    validate.let_go()
    assert world.leave(world.served(waiter)) is None
    assert validate.calls == 1


def test_04_resource_of_one_who_gave_up_is_not_valid(world: World) -> None:
    """Scenario 4: it goes, and is replaced for the next one."""
    validate = world.step(lambda thing: False)
    pool = world.filled(validate=validate)
    validate.hold()
    world.abandon(world.line(pool, 1)[0])
    world.until(lambda: validate.held == 1)
    validate.let_go()
    world.until(lambda: pool.stats().destroyed == {"invalid": 1})
    world.assert_full(pool)


def test_06_release_awaits_nothing(tasks: TaskWorld) -> None:
    """Scenario 6: a cancellation that comes with the exit is raised after it, at the next await."""
    pool = tasks.filled()

    async def use() -> str:
        task = asyncio.current_task()
        assert task is not None
        async with pool.lease():
            task.cancel()
        left = pool.stats().available
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return f"cancelled with {left} idle"
        return "not cancelled"

    assert tasks.runner.run(use()) == "cancelled with 1 idle"
    tasks.assert_full(pool)


def test_06_cancelled_while_the_resource_is_reset(world: World) -> None:
    """Scenario 6: whoever returned it has gone on long ago; the reset ends, and the next one is served."""
    reset = world.step(lambda thing: None)
    pool = world.filled(reset=reset)
    reset.hold()
    caller = world.served(world.lease(pool))
    assert world.leave(caller) is None  # though the reset hangs
    waiter = world.line(pool, 1, timeout=None)[0]
    if isinstance(world, TaskWorld):
        caller.future.cancel()
    reset.let_go()
    assert world.served(waiter).thing is caller.thing
    assert world.leave(waiter) is None


@pytest.mark.parametrize("where", ["in line", "inside"])
def test_07_second_cancellation(tasks: TaskWorld, where: str) -> None:
    """Scenario 7: a second one that comes while the first one is dealt with loses nothing either."""
    pool = tasks.filled()

    async def use() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with pool.lease(timeout=None):
                try:
                    await asyncio.Event().wait()
                finally:
                    task.cancel()
        finally:
            task.cancel()

    holder = tasks.served(tasks.lease(pool)) if where == "in line" else None
    future = tasks.start(use)
    tasks.until(lambda: pool.stats().waiting == (where == "in line") and pool.stats().in_use == 1)
    tasks.call(lambda: (future.cancel(), future.cancel()))
    tasks.until(future.done)
    assert future.cancelled()
    if holder is not None:
        tasks.leave(holder)
    assert (pool.stats().available, pool.stats().waiting) == (1, 0)
    tasks.assert_full(pool)


@pytest.mark.parametrize("does", [*map(raising, ERRORS), lambda thing: False, lambda thing: None, lambda thing: Undecided()])
def test_11_resource_is_not_valid(world: World, does: Callable[..., Any]) -> None:
    """Scenario 11, I4: it is destroyed, and another one is made within the same deadline."""
    validate = world.step(lambda thing: True)
    pool = world.filled(validate=validate)
    validate.does = does
    caller = world.served(world.lease(pool))
    assert caller.thing is world.things[1]
    assert world.leave(caller) is None
    world.until(lambda: world.things[0].ends == 1)
    assert pool.stats().destroyed == {"invalid": 1}
    validate.does = lambda thing: True
    world.assert_full(pool)


def test_11_one_of_several_is_valid(world: World) -> None:
    """Scenario 11: what is valid is used before anything is created."""
    validate = world.step(lambda thing: True)
    pool = world.filled(max_size=3, validate=validate)
    tried: list[object] = []

    def third_time(thing: Any) -> bool:
        tried.append(thing)
        return len(tried) == 3

    validate.does = third_time
    caller = world.served(world.lease(pool, timeout=None))
    assert caller.thing in world.things
    assert world.leave(caller) is None
    assert 1 <= pool.stats().destroyed["invalid"] <= 2


def test_11_validator_hangs(world: World) -> None:
    """Scenario 11, I7: the deadline bounds it."""
    validate = world.step(lambda thing: True)
    pool = world.filled(validate=validate)
    validate.hold()
    waiter = world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    assert "0 are held, 0 idle, 0 being created, 1 being validated or reset" in str(error)
    validate.let_go()
    world.assert_full(pool)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_12_reset_raises(world: World, error: BaseException) -> None:
    """Scenario 12, I4: the resource is replaced for whoever waits, and the caller's own error is what it gets."""
    reset = world.step(lambda thing: None)
    pool = world.filled(reset=reset)
    reset.does = raising(error)
    mine = ValueError("mine")
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1, timeout=None)[0]
    assert world.leave(holder, mine) is mine
    assert world.served(waiter).thing is not holder.thing
    reset.does = lambda thing: None
    assert world.leave(waiter) is None
    world.until(lambda: holder.thing.ends == 1)
    assert pool.stats().destroyed == {"reset": 1}


def test_12_reset_hangs(world: World) -> None:
    """Scenario 12: nobody but those who wait for this resource notices, and their deadline tells why."""
    reset = world.step(lambda thing: None)
    pool = world.filled(reset=reset)
    reset.hold()
    assert world.leave(world.served(world.lease(pool))) is None
    world.until(lambda: reset.held == 1)
    waiter = world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    assert "1 being validated or reset" in str(world.outcome(waiter))
    reset.let_go()
    world.assert_full(pool)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_13_dispose_raises(world: World, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """Scenario 13: it is counted and logged, and its place is free."""
    dispose = world.step(raising(error))
    pool = world.filled(dispose=dispose)
    world.call(pool.destroy, world.do(pool.acquire))
    world.until(lambda: "a resource could not be disposed of" in caplog.text)
    assert repr(error) in caplog.text
    assert pool.stats().destroyed == {"requested": 1}
    dispose.does = lambda thing: thing.close()
    world.assert_full(pool)
    world.things[0].close()


def test_13_dispose_hangs(world: World) -> None:
    """Scenario 13: its place is free before it ends, and closing the pool does not wait beyond its timeout."""
    dispose = world.step(lambda thing: thing.close())
    pool = world.filled(dispose=dispose)
    dispose.hold()
    world.call(pool.destroy, world.do(pool.acquire))
    world.assert_full(pool)
    world.until(lambda: dispose.held == 1)
    assert world.close(pool, timeout=0) is False
    dispose.let_go()
    assert world.close(pool, timeout=None) is True


def test_bug_13_disposals_that_hang_keep_nobody_from_creating(threads: ThreadWorld) -> None:
    """However many resources cannot be ended, their workers are not those who create."""
    dispose = threads.step(lambda thing: thing.close())
    pool = threads.pool(dispose=dispose)
    dispose.hold()
    for _ in range(20):
        caller = threads.served(threads.lease(pool, timeout=None))
        threads.call(pool.drain)
        assert threads.leave(caller) is None
    threads.assert_full(pool)
    dispose.let_go()


def usual_context() -> BaseException | None:
    """Return the context of any error here; a trace function that raised earlier in this process leaves one behind."""
    try:
        raise ValueError
    except ValueError as error:
        return error.__context__


@pytest.mark.parametrize("error", [ValueError("mine"), StopIteration("mine"), asyncio.CancelledError("mine")])
def test_14_body_raises(world: World, error: BaseException) -> None:
    """Scenario 14: the resource is returned, and the error is as it was."""
    pool = world.filled()

    def use_threads() -> None:
        with pool.lease():
            raise error

    async def use_tasks() -> BaseException:
        try:
            async with pool.lease():
                raise error
        except BaseException as caught:  # a coroutine cannot raise StopIteration
            return caught

    if isinstance(world, ThreadWorld):
        with pytest.raises(type(error)) as caught:
            use_threads()
        assert caught.value is error
    else:
        assert world.do(use_tasks) is error
    assert error.__context__ is usual_context()
    assert error.__cause__ is None
    assert pool.stats().available == 1
    world.assert_full(pool)


def test_14_body_finds_the_resource_broken(world: World) -> None:
    """Scenario 14: it is destroyed inside of the block, and leaving the block is no second return."""
    pool = world.filled()

    def use_threads() -> None:
        with pool.lease() as thing:
            pool.destroy(thing)

    async def use_tasks() -> None:
        async with pool.lease() as thing:
            pool.destroy(thing)

    world.do(use_threads if isinstance(world, ThreadWorld) else use_tasks)
    world.until(lambda: pool.stats().destroyed == {"requested": 1})
    world.assert_full(pool)


def test_14_log_tells_what_could_not_be_reset(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Scenarios 12 and 14: nobody gets the error, and so it is logged."""
    pool = world.pool(reset=raising(OSError("half-open transaction")))
    world.leave(world.served(world.lease(pool, timeout=None)))
    world.until(lambda: "half-open transaction" in caplog.text)
    assert caplog.records[-1].levelno == logging.WARNING
