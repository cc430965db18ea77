"""Conformance, what holds at any time: invariants I1-I11 and scenario 34, and that no scenario is missing.

What the scenarios of the other files say about an invariant is marked there.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_perfopt.errors import PoolClosed, PoolTimeout
from otel_perfopt.telemetry import instruments, names, spans
from otel_perfopt.telemetry.events import subscribe
from tests.cache.support import TIMEOUT, spawn, spawn_many
from tests.pool.support import PATIENCE, TaskWorld, ThreadWorld, World
from tests.telemetry.test_spans import FailingProcessor

ROUNDS = 25


def busy(world: World, pool: Any, callers: int, body: Callable[[Any], None]) -> list[Any]:
    """Let several callers lease again and again, and return their futures."""

    def use() -> None:
        for _ in range(ROUNDS):
            with pool.lease(timeout=None) as thing, thing.used():
                body(thing)

    async def use_async() -> None:
        for _ in range(ROUNDS):
            async with pool.lease(timeout=None) as thing:
                with thing.used():
                    body(thing)
                    await asyncio.sleep(0)

    return [world.start(use if isinstance(world, ThreadWorld) else use_async) for _ in range(callers)]


def test_i01_never_more_than_the_limit(world: World) -> None:
    """I1, I3, I6, I11: seen from inside of every function of the user's, while eight callers use three resources."""
    seen: list[tuple[int, bool]] = []

    def look(thing: Any = None) -> bool:
        stats = pool.stats()
        lock: Any = pool._lock
        seen.append((stats.available + stats.in_use + stats.creating, lock._is_owned()))
        return len(seen) % 7 != 0  # now and then something is not valid

    def make() -> Any:
        look()
        return world.make()

    pool = world.pool(factory=make, max_size=3, validate=look, reset=look, dispose=lambda thing: (look(), thing.close()))
    futures = busy(world, pool, 8, lambda thing: None)
    world.until(lambda: all(future.done() for future in futures))
    assert [future.result() for future in futures] == [None] * 8
    assert max(count for count, _ in seen) <= 3
    assert not any(is_owned for _, is_owned in seen)
    stats = pool.stats()
    assert stats.acquires == 8 * ROUNDS
    assert stats.destroyed["invalid"] > 5
    world.assert_full(pool)


def test_i02_everything_is_returned_or_destroyed_once(world: World) -> None:
    """I2, I11: the counts agree with what has happened to each resource."""
    pool = world.pool(max_size=3)

    def body(thing: Any) -> None:
        (pool.release if thing.number % 2 else pool.destroy)(thing)

    def use() -> None:
        for _ in range(ROUNDS):
            body(pool.acquire(timeout=None))

    async def use_async() -> None:
        for _ in range(ROUNDS):
            body(await pool.acquire(timeout=None))

    futures = [world.start(use if isinstance(world, ThreadWorld) else use_async) for _ in range(4)]
    world.until(lambda: all(future.done() for future in futures))
    assert [future.exception() for future in futures] == [None] * 4
    # A worker may still be about one that takes the place of a destroyed one.
    world.until(lambda: (stats := pool.stats()).available == stats.total_created - sum(stats.destroyed.values()))
    stats = pool.stats()
    world.until(lambda: sum(thing.ends for thing in world.things) == stats.destroyed["requested"])
    assert (stats.in_use, stats.total_created) == (0, len(world.things))


@pytest.mark.parametrize("state", ["queued", "creating", "validating"])
def test_i08_cancellation_is_neither_lost_nor_swallowed(tasks: TaskWorld, state: str) -> None:
    """I8: a timeout of asyncio around a lease, wherever it strikes, ends it with its own error at once."""
    validate = tasks.step(lambda thing: True)
    pool = tasks.pool(validate=validate) if state == "creating" else tasks.filled(validate=validate)
    holder = tasks.served(tasks.lease(pool)) if state == "queued" else None
    tasks.factory.hold()
    validate.hold()

    async def use() -> str:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0), pool.lease(timeout=None):
                pass
        assert not isinstance(caught.value, PoolTimeout)
        assert task.cancelling() == 0
        return "went on"

    assert tasks.do(use) == "went on"
    assert pool.stats().waiting == 0
    tasks.factory.let_go()
    validate.let_go()
    if holder is not None:
        tasks.leave(holder)
    tasks.assert_full(pool)


def test_i07_one_deadline_for_everything(world: World) -> None:
    """I7: waiting in line, a validation that fails and a creation that hangs have one deadline together."""
    validate = world.step(lambda thing: True)
    pool = world.filled(validate=validate)
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1)[0]
    validate.does = lambda thing: False
    world.clock.advance(PATIENCE / 2)
    world.factory.hold()
    world.leave(holder)
    world.until(lambda: world.factory.held == 1)
    assert (waiter.thing, holder.thing.ends, pool.stats().destroyed) == (None, 1, {"invalid": 1})
    world.clock.advance(PATIENCE / 2)
    error = world.outcome(waiter)
    assert isinstance(error, PoolTimeout)
    assert f"within {PATIENCE:.3g} s" in str(error)


def test_i10_after_close_nobody_waits(world: World) -> None:
    """I10: not those in line, not those whose resource is being made or validated, and not those who come later."""
    pool = world.pool(max_size=2)
    world.factory.hold()
    line = world.line(pool, 4, timeout=None)
    world.start(pool.close, timeout=None)
    assert {type(world.outcome(caller)) for caller in line} == {PoolClosed}
    with pytest.raises(PoolClosed):
        world.do(pool.acquire, timeout=None)


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_34_subscriber_raises(threads: ThreadWorld, error: BaseException) -> None:
    """Scenario 34: a callback for the events of a pool harms nobody, whatever it raises."""

    def fail(_: object) -> None:
        raise error

    with subscribe("pool.*", fail):
        pool = threads.pool(max_size=2)
        line = [threads.lease(pool, timeout=None) for _ in range(6)]
        for caller in line:
            caller.is_over.set()
        assert [threads.outcome(caller) for caller in line] == [None] * 6
        pool.drain()
        threads.assert_full(pool)
        assert pool.close(timeout=None)
    assert all(thing.ends == 1 for thing in threads.things)


def test_34_subscriber_uses_the_pool(world: World) -> None:
    """Scenario 34: it may ask for its state, and change it."""
    seen = []

    def use(event: Any) -> None:
        seen.append((event.name, pool.stats().name))
        pool.drain()

    with subscribe("pool.*", use):
        pool = world.pool()
        caller = world.served(world.lease(pool))
        assert world.leave(caller) is None
        world.until(lambda: len(seen) == 2)
    assert seen == [("pool.resource_created", "things"), ("pool.resource_destroyed", "things")]


@pytest.mark.parametrize("where", ["start", "end"])
def test_34_span_processor_raises(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Scenario 34: spans that fail reach nobody."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FailingProcessor(where))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("x"))
    pool = world.pool(max_size=2)
    world.assert_full(pool)
    assert pool.stats().total_created == 2


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


def raise_anywhere(world: World, fail: Callable[..., Any]) -> None:
    """Have each function of the user's raise in turn, and check that nobody is left waiting."""
    hooks = {name: world.step(lambda *_: True) for name in ("validate", "reset")}
    hooks["dispose"] = world.step(lambda thing: thing.close())
    pool = world.filled(**hooks)
    for hook in hooks.values():
        does, hook.does = hook.does, fail
        assert world.leave(world.served(world.lease(pool, timeout=None))) is None
        world.call(pool.drain)
        world.settle()
        hook.does = does
    world.factory.does = fail
    world.call(pool.drain)
    waiter = world.lease(pool, timeout=None)
    before = world.factory.calls
    world.in_time(lambda: world.factory.calls >= before + 3)
    world.factory.does = world.make
    world.in_time(lambda: waiter.thing is not None)
    assert world.leave(waiter) is None
    world.assert_full(pool)
    for thing in world.things:
        if not thing.ends and pool._find(thing) is None:  # it could not be disposed of
            thing.close()


def test_bug_34_error_cannot_be_shown(world: World) -> None:
    """An error whose text raises, where it is logged, leaves nobody waiting."""

    def fail(*_: object) -> None:
        raise Unspeakable

    raise_anywhere(world, fail)


def test_34_log_handler_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 34: neither does a log that fails."""

    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(logging.getLogger("otel_perfopt"), "handle", fail)
    raise_anywhere(world, fail)


def test_34_collection_waits_for_nobody(threads: ThreadWorld) -> None:
    """Scenario 34: metrics are read while another thread is in the middle of a change, and a change is made meanwhile."""
    pool = threads.filled(max_size=2)
    with pool._lock:
        assert spawn(lambda: list(instruments.observe(names.POOL_COUNT))).result(TIMEOUT)
        assert spawn(lambda: list(instruments.observe(names.POOL_PENDING_REQUESTS))).result(TIMEOUT)
        repr_in_thread = spawn(lambda: pool.acquire(timeout=None))
        threads.until(repr_in_thread.done)  # what is idle needs no lock
    pool.release(repr_in_thread.result())


def test_34_collection_in_a_busy_process(threads: ThreadWorld) -> None:
    """Scenario 34, I1: whenever it is read, used and idle are within the limit."""
    pool, stop = threads.pool(max_size=3), threading.Event()
    sums: list[float] = []

    def collect() -> None:
        while not stop.is_set():
            values = pool._states()
            sums.append(values["idle"] + values["used"])

    reader = spawn_many(1, collect)
    futures = busy(threads, pool, 6, lambda thing: None)
    threads.until(lambda: all(future.done() for future in futures))
    stop.set()
    assert reader[0].exception(TIMEOUT) is None
    assert 0 <= min(sums) <= max(sums) <= 3


def test_no_scenario_is_missing() -> None:
    """All 34 scenarios have a test with their number, and all 11 invariants are named where something shows them."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_conformance_*.py"))
    assert {int(number) for number in re.findall(r"^def test_(\d\d)_", text, re.MULTILINE)} == set(range(1, 35))
    assert {int(number) for number in re.findall(r"\bI(\d+)\b(?=[^\"]*\"\"\")", text)} >= set(range(1, 12))
