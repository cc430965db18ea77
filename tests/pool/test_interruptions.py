"""Ctrl-C anywhere: whatever line it interrupts, the whole capacity comes back and nobody gets what another one has."""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import pytest

from otel_perfopt.errors import PoolTimeout
from tests.cache.support import no_collection
from tests.interruptions import interrupted_at
from tests.pool.support import TaskWorld, Thing, ThreadWorld, World

PARTS = ("_core/pool.py", "pool/base.py", "pool/housekeeping.py", "pool/threads.py", "pool/tasks.py")
"""What changes anything; not what only describes it."""


def is_finalizer(frame: FrameType | None) -> bool:
    """Whether this is called by a finalizer, where Python itself swallows what is raised."""
    while frame is not None and frame.f_code.co_name not in ("__del__", "lose"):
        frame = frame.f_back
    return frame is not None


@contextmanager
def frozen() -> Iterator[None]:
    """Let collections look at what is new only, because there are many of them."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def check(world: World, pool: Any) -> None:
    """What was lost is found after a while, and then everything can be used; `finish` looks at the resources themselves."""
    gc.collect()
    world.in_time(lambda: pool.stats().in_use == pool.stats().waiting == pool.stats().creating == 0, within=400, step=40)
    assert pool._core.lent == {}
    world.assert_full(pool)
    for thing in world.things:
        thing.ends += thing.ends == 0 and pool._find(thing) is None  # lost for good, as documented
    world.finish()


def everywhere(make: Callable[[], World], prepare: Callable[[World], Any], step: Callable[[World, Any], Any]) -> None:
    """Interrupt a step at each of its lines in turn."""
    line, where = 0, "somewhere"
    with no_collection(), frozen():  # or a finalizer of other tests' garbage would be interrupted
        while where:
            line += 1
            world = make()
            pool = prepare(world)
            where = interrupted_at(line, partial(step, world, pool), PARTS, is_exempt=is_finalizer, expected=PoolTimeout)
            try:
                check(world, pool)
            except BaseException as error:
                error.add_note(f"after an interruption in {where}")
                raise
    assert line > 5, "nothing was interrupted"


class Fresh(Thing):
    """A thing that nobody but its holder keeps alive, so that its pool notices when it is gone."""


def fresh(world: World) -> Any:
    """A pool with two of these."""
    pool = idle(world, factory=lambda: Fresh(0, world.complaints))
    for caller in world.callers:
        caller.thing = None
    return pool


def idle(world: World, **options: Any) -> Any:
    """A pool with two idle resources."""
    return world.filled(max_size=2, **options)


def busy(world: World) -> Any:
    """A pool where there is nothing to get."""
    pool = idle(world)
    world.held = [world.lease(pool), world.lease(pool)]  # type: ignore[attr-defined]
    for caller in world.held:  # type: ignore[attr-defined]
        world.served(caller)
    return pool


def lease_and_drain(world: World, pool: Any) -> None:
    """Lease a resource of a limited lifetime and return it, and replace it."""
    lease(world, pool)
    pool.drain()


def lease(world: World, pool: Any) -> None:
    """Lease a resource and return it."""
    with pool.lease(timeout=0) as thing, thing.used():
        pass


def acquire(world: World, pool: Any) -> None:
    """The same by hand."""
    pool.release(pool.acquire(timeout=0))


def destroy(world: World, pool: Any) -> None:
    """Return one as useless."""
    with pool.lease(timeout=0) as thing:
        pool.destroy(thing)


def give_up(world: World, pool: Any) -> None:
    """Wait in vain, and let the others go after that."""
    try:
        pool.acquire(timeout=0)
    finally:
        for caller in world.held:  # type: ignore[attr-defined]
            caller.is_over.set()


def waited_for(world: World) -> Any:
    """A pool where somebody waits for what the main thread has."""
    pool = fresh(world)
    world.held = [world.do(pool.acquire), world.do(pool.acquire)]  # type: ignore[attr-defined]
    world.line(pool, 1, timeout=None)[0].is_over.set()
    return pool


def hand_over(world: World, pool: Any) -> None:
    """Return it."""
    try:
        pool.release(world.held[0])  # type: ignore[attr-defined]
    finally:
        world.held.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prepare", "step"),
    [
        (idle, lease),
        (fresh, acquire),
        (idle, destroy),
        (lambda world: idle(world, reset=lambda thing: None), lease),
        (lambda world: idle(world, max_lifetime=100), lease_and_drain),
        (waited_for, hand_over),
        (lambda world: idle(world, leak_after=None, idle_timeout=None), lease),
        (idle, lambda world, pool: pool.resize(3)),
        (idle, lambda world, pool: pool._sweep()),
    ],
    ids=["lease", "acquire", "destroy", "reset", "drain", "hand over", "no timers", "resize", "sweep"],
)
def test_step_of_a_thread_may_be_interrupted_anywhere(prepare: Callable[[World], Any], step: Callable[[World, Any], Any]) -> None:
    """What was taken is returned, at the latest when the pool is swept."""
    everywhere(ThreadWorld, prepare, step)


def test_wait_may_be_interrupted_anywhere() -> None:
    """Nobody who has gone stands in line."""
    everywhere(ThreadWorld, busy, give_up)


async def lease_async(pool: Any) -> None:
    """Lease a resource and return it."""
    async with pool.lease(timeout=0) as thing:
        with thing.used():
            pass


async def acquire_async(pool: Any) -> None:
    """The same by hand."""
    pool.release(await pool.acquire(timeout=0))


@pytest.mark.parametrize(("prepare", "step"), [(idle, lease_async), (fresh, acquire_async), (busy, lease_async)])
def test_step_of_a_task_may_be_interrupted_anywhere(prepare: Callable[[World], Any], step: Callable[[Any], Any]) -> None:
    """The same for tasks, with and without something to get."""

    def run(world: World, pool: Any) -> None:
        assert isinstance(world, TaskWorld)
        task = world.loop.create_task(step(pool))
        try:
            while not task.done():
                world.loop.run_until_complete(asyncio.sleep(0))
            task.result()
        finally:
            sys.settrace(None)
            for caller in getattr(world, "held", ()):
                caller.is_over.set()

    everywhere(TaskWorld, prepare, run)
