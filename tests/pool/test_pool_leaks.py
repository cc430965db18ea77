"""Who holds what: messages about those who keep something for long, and resources of every kind."""

import asyncio
import gc
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_perfopt.errors import PoolTimeout
from tests.cache.support import spawn
from tests.pool.support import PATIENCE, TaskWorld, ThreadWorld, World

LONG = "a resource is held for long"


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of resources that are held for long."""
    return [record.getMessage() for record in caplog.records if LONG in record.getMessage()]


def test_leak_is_reported_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each lease that takes longer than `leak_after`, and none for the others."""
    pool = world.filled(max_size=2, leak_after="1m")
    caller = world.served(world.lease(pool))
    world.clock.advance(30)
    other = world.served(world.lease(pool))
    world.clock.advance(29)
    world.settle()
    assert (pool.stats().leaks, reports(caplog)) == (0, [])
    assert world.leave(other) is None
    world.in_time(lambda: pool.stats().leaks == 1, within=60, step=1)
    world.in_time(lambda: len(reports(caplog)) == 1, within=300, step=50)
    assert pool.stats().leaks == 1
    assert world.leave(caller) is None
    caller = world.served(world.lease(pool))
    world.in_time(lambda: pool.stats().leaks == 2, within=200, step=10)
    world.until(lambda: len(reports(caplog)) == 2)
    assert world.leave(caller) is None


def test_leak_is_not_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """With `leak_after=None` there is no warning."""
    pool = world.filled(leak_after=None)
    caller = world.served(world.lease(pool))
    world.clock.advance(1e6)
    world.settle()
    assert (pool.stats().leaks, reports(caplog)) == (0, [])
    assert world.leave(caller) is None


@contextmanager
def span() -> Iterator[str]:
    """A span of the application's own; its trace id."""
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("app").start_as_current_span("request") as current:
        yield trace.format_trace_id(current.get_span_context().trace_id)


@pytest.mark.parametrize("how", ["block", "by hand"])
def test_report_has_the_stack_and_the_trace(world: World, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """Where it was acquired, by whom this was called, and in which trace: for a block, and for what was acquired by hand."""
    pool, traces, ended = world.filled(leak_after=10), list[str](), threading.Event()

    def handler() -> None:
        with span() as trace_id:
            traces.append(trace_id)
            if how == "block":
                with pool.lease():
                    ended.wait(20)
            else:
                pool.release(acquire())

    def acquire() -> Any:
        thing = pool.acquire()
        ended.wait(20)
        return thing

    async def handler_async() -> None:
        with span() as trace_id:
            traces.append(trace_id)
            if how == "block":
                async with pool.lease():
                    await wait_until_ended()
            else:
                pool.release(await acquire_async())

    async def acquire_async() -> Any:
        thing = await pool.acquire()
        await wait_until_ended()
        return thing

    async def wait_until_ended() -> None:
        while not ended.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0)

    future = world.start(handler if isinstance(world, ThreadWorld) else handler_async)
    world.until(lambda: pool.stats().in_use == 1 and pool._core.slots[0].noted > 0)
    world.in_time(lambda: len(reports(caplog)) == 1, within=60, step=5)
    ended.set()
    world.until(future.done)
    assert future.result() is None
    (report,) = reports(caplog)
    inner = "handler" if how == "block" else "acquire"
    assert re.search(rf"stack=\['[^']*test_pool_leaks.py:\d+ in [^']*<locals>.{inner}[^']*'", report)
    assert re.search(r"test_pool_leaks.py:\d+ in [^']*<locals>.handler", report)
    assert f"trace_id='{traces[0]}'" in report
    assert "holder=" in report
    if how == "by hand" or isinstance(world, TaskWorld):  # also who called this; another thread's frames cannot be walked safely
        assert "support.py" in report.split("stack=")[1]


def test_timeout_tells_who_holds_what(world: World) -> None:
    """For each lease its age, the thread or task, and the line; the longest first, and not without end."""
    pool = world.filled(max_size=12)
    callers = []
    for _ in range(12):
        callers.append(world.served(world.lease(pool)))
        world.clock.advance(1)
    waiter = world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    first, *lines = str(error).splitlines()
    assert first == (
        "pool 'things' had no resource to give within 5 s. Of at most 12, 12 are held, 0 idle, 0 being created, "
        "0 being validated or reset."
    )
    assert len(lines) == 11
    who = "thread 'Thread-" if isinstance(world, ThreadWorld) else "task 'Task-"
    assert re.match(rf"  things-\d+, for 17.0 s, by {who}.*', acquired at .*support.py:\d+ in .*use$", lines[0])
    assert "for 8.0 s" in lines[9]
    assert lines[10] == "  and 2 more"
    holders = error.context["holders"]
    assert (error.code, len(holders), holders[0].keys()) == (
        "POOL_TIMEOUT",
        12,
        {"resource_id", "seconds", "holder", "trace_id", "stack"},
    )
    assert [world.leave(caller) for caller in callers] == [None] * 12


def test_holder_whose_thread_has_ended(threads: ThreadWorld) -> None:
    """A thread that has gone without returning what it had is said to have done so."""
    pool = threads.filled()
    thread = threading.Thread(target=lambda: held.append(pool.acquire()))
    held: list[Any] = []
    thread.start()
    thread.join()
    with pytest.raises(PoolTimeout, match=r"by thread \d+, which has ended, acquired at"):
        pool.acquire(timeout=0)
    pool.release(held.pop())


class Liar:
    """Equal to everything, without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Slotted:
    """Cannot be referred to weakly, and takes no attributes."""

    __slots__ = ()


class Session:
    """A context manager itself, in both ways, and false."""

    entered = 0

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.entered += 1

    __aenter__ = __aexit__ = None


@pytest.mark.parametrize(
    "make",
    [Liar, Slotted, Session, list, lambda: {"a": 1}, lambda: (object(),), iter(range(1000, 2000)).__next__, lambda: lambda: 1],
    ids=["equal", "slotted", "context manager", "list", "dict", "tuple", "int", "function"],
)
def test_any_object_is_a_resource(world: World, make: Callable[[], Any]) -> None:
    """Told from others by its identity, and left as it is: nothing is written onto it, entered or called."""
    pool = world.pool(factory=make, max_size=2)
    first, second = world.do(pool.acquire), world.do(pool.acquire)
    assert first is not second
    assert not vars(first) if isinstance(first, Liar | Session) else True
    world.call(pool.release, second)
    assert world.do(pool.acquire) is second
    world.call(pool.release, first)
    with pytest.raises(ValueError, match="released already"):
        world.call(pool.release, first)
    world.call(pool.destroy, second)
    world.until(lambda: pool.stats().destroyed == {"requested": 1})
    world.assert_full(pool)


def test_pool_keeps_no_resource_alive_that_somebody_dropped(threads: ThreadWorld) -> None:
    """Nor does the lease of another one, or the message about the last."""

    class Heavy:
        pass

    pool = threads.pool(factory=Heavy)
    with pool.lease() as heavy:
        gone = weakref.ref(heavy)
        pool.destroy(heavy)
        del heavy
    threads.settle()
    gc.collect()
    threads.until(lambda: gone() is None)


def test_pool_is_collected(threads: ThreadWorld) -> None:
    """Neither its timers nor the resources that it had keep it alive."""
    pool = threads.pool(min_size=1)
    pool.open()
    threads.pools.remove(pool)
    for thing in threads.things:
        thing.close()
    gone = weakref.ref(pool)
    threads.settle()
    del pool
    gc.collect()
    threads.until(lambda: gc.collect() >= 0 and gone() is None)


@pytest.mark.parametrize("ends", ["destroy", "aclose", "close", "nothing"])
def test_resource_ends_in_its_own_way(world: World, ends: str) -> None:
    """By its `destroy`, `aclose` (awaited) or `close`, whichever comes first; or not at all."""
    called: list[str] = []

    async def aclose() -> None:
        called.append("aclose")

    def make() -> Any:
        names = ["destroy", "aclose", "close", "nothing"]
        names = names[names.index(ends) :][:-1]
        methods: dict[str, Any] = {name: (lambda self, name=name: called.append(name)) for name in names}
        if "aclose" in methods and isinstance(world, TaskWorld):
            methods["aclose"] = lambda self: aclose()
        return type("Own", (), methods)()

    pool = world.pool(factory=make)
    world.call(pool.release, world.do(pool.acquire))
    assert world.close(pool)
    expected = {"nothing": [], "aclose": ["aclose"] if isinstance(world, TaskWorld) else ["close"]}.get(ends, [ends])
    assert called == expected


def test_report_from_another_thread(threads: ThreadWorld) -> None:
    """Asking for the state never waits for those who hold something."""
    pool = threads.filled(max_size=2)
    with pool.lease():
        assert spawn(lambda: (pool.stats().in_use, repr(pool))).result(20)[0] == 1
