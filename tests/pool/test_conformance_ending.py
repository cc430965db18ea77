"""Conformance, the end: scenarios 17-20 and 29."""

import asyncio
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt.errors import PoolClosed
from otel_perfopt.pool import AsyncResourcePool
from tests.pool.support import TaskWorld, Thing, World
from tests.sync.test_fork import PRELUDE, run_script

PRELUDE += """
from otel_perfopt.pool import AsyncResourcePool, ResourcePool

class Thing:
    def __init__(self):
        self.pid, self.ends = os.getpid(), 0

    def close(self):
        assert os.getpid() == self.pid, "a resource of the parent was ended in the child"
        self.ends += 1
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def test_17_release_after_close(world: World) -> None:
    """Scenario 17, I10: it is destroyed then, and not before."""
    pool = world.filled(max_size=2)
    caller = world.served(world.lease(pool))
    thing = world.do(pool.acquire)
    closing = world.start(pool.close, timeout=None)
    world.until(lambda: pool.is_closed)
    assert [each.ends for each in world.things] == [0, 0]
    world.call(pool.release, thing)
    assert world.leave(caller) is None
    world.until(closing.done)
    assert closing.result() is True
    assert pool.stats().destroyed == {"close": 2}


def test_17_acquire_after_close(world: World) -> None:
    """Scenario 17: an error at once, also for `open`."""
    pool = world.filled()
    assert world.close(pool) is True
    for call in (pool.acquire, pool.open):
        with pytest.raises(PoolClosed, match="pool 'things' is closed"):
            world.do(call, timeout=None)


def test_17_close_twice(world: World) -> None:
    """Scenario 17: the second time, also at the same time, does no harm and waits as well."""
    pool = world.filled()
    caller = world.served(world.lease(pool))
    closings = [world.start(pool.close, timeout=None) for _ in range(3)]
    world.until(lambda: pool.is_closed)
    world.settle()
    assert not any(closing.done() for closing in closings)
    assert world.leave(caller) is None
    world.until(lambda: all(closing.done() for closing in closings))
    assert [closing.result() for closing in closings] == [True] * 3
    assert world.close(pool) is True
    assert [thing.ends for thing in world.things] == [1]


@pytest.mark.parametrize("step", ["validate", "reset"])
def test_17_close_while_a_resource_is_looked_after(world: World, step: str) -> None:
    """Scenario 17: it is disposed of when that is done."""
    hook = world.step(lambda thing: True)
    pool = world.filled(**{step: hook})
    hook.hold()
    caller = world.lease(pool, timeout=None)
    if step == "reset":
        world.leave(world.served(caller))
    world.until(lambda: hook.held == 1)
    closing = world.start(pool.close, timeout=None)
    world.until(lambda: pool.is_closed)
    hook.let_go()
    world.until(closing.done)
    assert closing.result() is True
    assert isinstance(world.outcome(caller), PoolClosed if step == "validate" else type(None))
    assert [thing.ends for thing in world.things] == [1]


def test_18_close_with_waiters(world: World) -> None:
    """Scenario 18, I10: all of them know at once, though the holder goes on."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    line = world.line(pool, 3, timeout=None)
    world.start(pool.close, timeout=None)
    assert [type(world.outcome(caller)) for caller in line] == [PoolClosed] * 3
    assert pool.stats().waiting == 0
    assert world.leave(holder) is None


def test_18_close_with_a_holder_who_never_returns(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 18: close ends at its timeout, and tells who holds what from where."""
    pool = world.filled()
    holder = world.served(world.lease(pool))
    closing = world.start(pool.close, timeout=5)
    world.until(lambda: pool.is_closed)
    world.in_time(closing.done, within=10, step=1)
    assert closing.result() is False
    assert "a pool was closed before everything was returned and disposed of" in caplog.text
    assert re.search(r"things-0, for \d+\.0 s, by (task|thread) .*, acquired at .*support.py:\d+ in .*use", caplog.text)
    assert world.leave(holder) is None


def test_19_pool_is_used_by_a_second_loop(name: str) -> None:
    """Scenario 19: after the first was closed the pool begins anew, with nothing that belongs to the first."""
    things: list[Thing] = []

    def make() -> Thing:
        things.append(Thing(len(things), []))
        return things[-1]

    pool = AsyncResourcePool(name, make, max_size=1)

    async def use() -> Any:
        await pool.open()
        async with pool.lease() as thing:
            waiter = asyncio.ensure_future(pool.acquire())
            await asyncio.sleep(0)
        pool.release(await waiter)
        return thing

    for number in range(3):
        assert asyncio.run(use()).number == number
        assert (pool.stats().available, pool.stats().waiting) == (1, 0)
    assert [thing.ends for thing in things] == [0, 0, 0]


def test_19_what_the_first_loop_left_behind_may_end_later(name: str) -> None:
    """Scenario 19: a lease, a waiter and a creation that the first loop never ended do not get in the way of the second."""
    pool = AsyncResourcePool(name, lambda: Thing(0, []), max_size=1, min_size=0)
    leases: list[Any] = []

    async def begin() -> None:
        leases.append(pool.lease())
        await leases[0].__aenter__()
        asyncio.ensure_future(pool.acquire(timeout=None))  # type: ignore[unused-awaitable]  # noqa: RUF006 - nobody waits for it
        await asyncio.sleep(0)

    async def go_on() -> None:
        async with pool.lease() as thing:
            await leases[0].__aexit__(None, None, None)
            pool.release(leases[0].value)
            assert thing is not leases[0].value
        assert pool.stats().available == 1
        assert await pool.close()

    asyncio.run(begin())
    asyncio.run(go_on())


def test_19_pool_is_used_by_two_loops(tasks: TaskWorld) -> None:
    """Scenario 19: that is refused with a reason, and the first loop does not notice."""
    pool = tasks.filled()

    async def use(call: Callable[[], Any]) -> None:
        with pytest.raises(RuntimeError, match="pool 'things' belongs to another event loop; make a pool for each loop"):
            await call()

    async def lease() -> None:
        async with pool.lease():
            pass

    for call in (lease, pool.acquire, pool.open, pool.close):
        asyncio.run(use(call))
    tasks.assert_full(pool)


@needs_fork
def test_20_fork_with_idle_used_and_creating_resources() -> None:
    """Scenario 20: the child has an empty pool, ends nothing of its parent's, and the parent does not notice."""
    script = """
opened, entered, parent = threading.Event(), threading.Event(), os.getpid()
slow = False

def make():
    if slow and os.getpid() == parent:
        entered.set()
        opened.wait(20)
    return Thing()

pool = ResourcePool("things", make, max_size=3, min_size=0, max_waiting=5)
lease, used = pool.lease(), pool.acquire()
mine = lease.__enter__()
idle = pool.acquire()
pool.release(idle)
slow = True
first = pool.acquire()
assert first is idle
waiters = [threading.Thread(target=lambda: pool.release(pool.acquire())) for _ in range(2)]
for waiter in waiters:
    waiter.start()
while pool.stats().waiting < 1 and not entered.is_set():
    time.sleep(0.001)
pool.release(first)

def check():
    stats = pool.stats()
    assert (stats.available, stats.in_use, stats.creating, stats.waiting, stats.acquires) == (0, 0, 0, 0, 0), stats
    things = [pool.acquire() for _ in range(3)]
    assert {thing.pid for thing in things} == {os.getpid()}
    pool.release(used)
    pool.destroy(used)
    lease.__exit__(None, None, None)
    assert pool.stats().available == 0
    for thing in things:
        pool.release(thing)
    assert pool.stats().available == 3
    pool.drain()
    assert pool.close()
    assert [thing.ends for thing in (*things, mine, used, idle)] == [1, 1, 1, 0, 0, 0]

in_child(check)
opened.set()
pool.release(used)
lease.__exit__(None, None, None)
for waiter in waiters:
    waiter.join(20)
assert pool.close()
assert [thing.ends for thing in (mine, used, idle)] == [1, 1, 1]
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


@needs_fork
def test_20_fork_while_another_thread_has_the_lock() -> None:
    """Scenario 20: the child has a lock of its own."""
    script = """
pool = ResourcePool("things", Thing, max_size=2)
pool.open()
taken, done = threading.Event(), threading.Event()

def hold():
    with pool._lock:
        taken.set()
        done.wait(20)

thread = threading.Thread(target=hold)
thread.start()
taken.wait(20)

def check():
    with pool.lease() as thing:
        assert thing.pid == os.getpid()
    assert pool.close()

in_child(check)
done.set()
thread.join()
assert pool.close()
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


@needs_fork
def test_20_fork_inside_of_a_lease() -> None:
    """Scenario 20: whoever forks inside of a block leaves it in the child, too, and nothing happens there."""
    script = """
pool = ResourcePool("things", Thing, max_size=1)
with pool.lease() as thing:
    pid = os.fork()
if pid == 0:
    stats = pool.stats()
    with pool.lease() as mine:
        ok = mine.pid == os.getpid() and thing.ends == 0 and stats.available == stats.in_use == 0
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
assert pool.stats().available == 1
assert pool.close() and thing.ends == 1
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


@needs_fork
def test_20_fork_and_tasks() -> None:
    """Scenario 20: a pool of tasks begins anew with the child's loop."""
    script = """
pool = AsyncResourcePool("things", Thing, max_size=2)

async def use():
    async with pool.lease() as thing:
        assert thing.pid == os.getpid()
        return thing

async def main():
    thing = await use()
    def check():
        asyncio.events._set_running_loop(None)
        assert asyncio.run(use()) is not thing
        assert thing.ends == 0
    in_child(check)
    assert await use() is thing
    assert await pool.close()

asyncio.run(main())
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_29_interpreter_exit() -> None:
    """Scenario 29: what is idle is ended, what is held is not waited for longer than promised, and nothing is printed."""
    script = """
class Loud(Thing):
    def close(self):
        print("closed", flush=True)

idle = ResourcePool("idle", Loud, min_size=2)
idle.open()
closed = ResourcePool("closed", Thing)
closed.open()
closed.close()
tasks = AsyncResourcePool("tasks", Thing)
asyncio.run(tasks.open())
"""
    assert run_script(PRELUDE + script).count("closed") == 2  # two threads write, and not always line by line


@pytest.mark.parametrize("what", ["dispose", "factory", "holder", "waiter"])
def test_29_interpreter_exit_while_something_hangs(what: str) -> None:
    """Scenario 29: whatever hangs, the process ends within the promised 5 seconds."""
    script = (
        f"what = {what!r}"
        """
forever = threading.Event().wait
pool = ResourcePool(
    "things", forever if what == "factory" else Thing, max_size=1, dispose=(lambda _: forever()) if what == "dispose" else None
)
if what == "dispose":
    pool.open()
elif what == "factory":
    pool.open(wait=False)
elif what == "holder":
    thing = pool.acquire()
else:
    thing = pool.acquire()
    threading.Thread(target=lambda: pool.acquire(timeout=None), daemon=True).start()
import atexit
start = time.monotonic()
atexit.register(lambda: print(time.monotonic() - start < 6))
"""
    )
    assert run_script(PRELUDE + script) == "True\n"
