"""Coroutines that want the same value at the same time: one load in all, whoever is cancelled."""

import asyncio
import gc
import traceback
from functools import partial
from typing import Any

import pytest

from otel_perfopt import LoadCancelled, ReentrantLoad, cached
from tests.cache.support import AsyncGate, Gate, new_cache, run, spawn, until_async, until_waiting_async

CALLERS = 12


async def together(cache: Any, gate: AsyncGate) -> list[Any]:
    """Have twelve tasks get one key while the load is in progress, then let it end."""
    tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(CALLERS)]
    await until_waiting_async(cache, CALLERS - 1)
    gate.opened.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("value", ["value", None, 0, ()])
def test_callers_share_one_load(value: object) -> None:
    """Twelve callers of a missing key cost one load, and all get its value, whatever it is."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate(value)
        assert await together(cache, gate) == [value] * CALLERS
        assert await cache.get_async("key", gate) == value
        assert gate.calls == 1
        stats = cache.stats()
        assert (stats.miss_count, stats.hit_count, stats.loads_in_flight) == (CALLERS, 1, 0)

    run(main())


def test_callers_share_one_error() -> None:
    """Twelve callers of a load that fails get its error; it is not kept, and the next caller loads again."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate(OSError("down"))
        outcomes = await together(cache, gate)
        assert outcomes == [gate.outcome] * CALLERS
        assert gate.calls == 1
        frames = [frame.name for frame in traceback.extract_tb(outcomes[-1].__traceback__)]
        assert frames.count("__call__") == 1, frames
        assert len(frames) < 12, frames
        assert await cache.get_async("key", lambda: "up") == "up"

    run(main())


def test_an_error_of_a_lone_caller_is_reported_once() -> None:
    """A load that fails logs no error of a task or future that nobody asked."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        cache = new_cache()
        for loader in (AsyncGate(OSError("down")), lambda: 1 // 0):
            if isinstance(loader, AsyncGate):
                loader.opened.set()
            with pytest.raises((OSError, ZeroDivisionError)):
                await cache.get_async("key", loader)
        await asyncio.sleep(0)
        gc.collect()

    run(main())
    assert complaints == []


def test_a_cancelled_leader_takes_nobody_along() -> None:
    """The caller that started the load is cancelled: five others get the value of the same load."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate()
        leader = asyncio.create_task(cache.get_async("key", gate))
        await gate.entered.wait()
        followers = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(5)]
        await until_waiting_async(cache, 5)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        gate.opened.set()
        assert await asyncio.gather(*followers) == ["value"] * 5
        assert (gate.calls, gate.cancelled) == (1, 0)
        assert "key" in cache

    run(main())


def test_a_cancelled_follower_takes_nobody_along() -> None:
    """One that waits is cancelled: all others get the value."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate()
        tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(6)]
        await until_waiting_async(cache, 5)
        tasks[3].cancel()
        await until_waiting_async(cache, 4)
        gate.opened.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [str, str, str, asyncio.CancelledError, str, str]
        assert gate.calls == 1

    run(main())


def test_when_all_are_cancelled_so_is_the_load() -> None:
    """The last one to go cancels the load; the next caller starts a new one, even while the old one is still unwinding."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate()
        tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(3)]
        await until_waiting_async(cache, 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await cache.get_async("key", lambda: "anew") == "anew"
        await until_async(lambda: gate.cancelled == 1)
        await until_async(lambda: cache.stats().loads_in_flight == 0)
        assert await cache.get_async("key") == "anew"

    run(main())


def test_a_load_that_ignores_its_cancellation_stores_nothing() -> None:
    """Nobody wanted its value any more."""

    async def main() -> None:
        cache, entered = new_cache(), asyncio.Event()

        async def stubborn() -> str:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            return "stubborn"

        task = asyncio.create_task(cache.get_async("key", stubborn))
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
        await until_async(lambda: cache.stats().loads_in_flight == 0)
        assert "key" not in cache

    run(main())


def test_a_timeout_around_a_call_is_a_cancellation() -> None:
    """A caller with a deadline leaves alone, and the load goes on for the others."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate()
        patient = asyncio.create_task(cache.get_async("key", gate))
        await gate.entered.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await cache.get_async("key", gate)
        gate.opened.set()
        assert await patient == "value"

    run(main())


@pytest.mark.parametrize("plain", [False, True])
def test_a_task_cancelled_before_its_first_step_leaves_nothing(plain: bool) -> None:
    """Neither a flight that nobody runs, nor a coroutine that nobody awaits."""

    async def main() -> None:
        cache = new_cache()
        gate = AsyncGate()
        loader: Any = (lambda: "plain") if plain else gate
        tasks = [asyncio.create_task(cache.get_async("key", loader)) for _ in range(3)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        caller = asyncio.create_task(cache.get_async("key", loader))
        await asyncio.sleep(0)  # the caller has started a load whose task has not
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await until_async(lambda: cache.stats().loads_in_flight == 0)
        gate.opened.set()
        assert await cache.get_async("key", loader) in ("plain", "value")

    run(main())


def test_a_load_cancelled_from_inside_says_so() -> None:
    """A loader that raises CancelledError gives LoadCancelled to its caller, who was not cancelled; others load again."""

    async def main() -> None:
        cache, gate = new_cache(), AsyncGate(asyncio.CancelledError("inner"))
        leader = asyncio.create_task(cache.get_async("key", gate))
        await gate.entered.wait()
        followers = [asyncio.create_task(cache.get_async("key", lambda: "again")) for _ in range(3)]
        await until_waiting_async(cache, 3)
        gate.opened.set()
        with pytest.raises(LoadCancelled, match="cancelled from inside") as info:
            await leader
        assert str(info.value.__cause__) == "inner"
        assert await asyncio.gather(*followers) == ["again"] * 3

    run(main())


@pytest.mark.parametrize("plain", [False, True])
def test_an_unusual_exit_of_a_load_reaches_its_caller(plain: bool) -> None:
    """GeneratorExit goes to the caller that started the load; others load again; the loop hears nothing of it."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        cache = new_cache()
        gate: Any = Gate(GeneratorExit()) if plain else AsyncGate(GeneratorExit())

        async def caught() -> str:
            try:
                return str(await cache.get_async("key", gate))
            except GeneratorExit:
                return "exit"

        leader = asyncio.create_task(caught())
        await until_async(gate.entered.is_set)
        follower = asyncio.create_task(cache.get_async("key", lambda: "again"))
        await until_waiting_async(cache, 1)
        gate.opened.set()
        assert await leader == "exit"
        assert await follower == "again"
        gc.collect()

    run(main())
    assert complaints == []


@pytest.mark.parametrize("exit_type", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_an_exit_stops_the_loop_and_others_load_again(exit_type: type[BaseException], plain: bool, left: bool) -> None:
    """It leaves the loop as it would from any task, also if its caller has left; a thread that waits loads by itself."""
    cache = new_cache()
    gate: Any = None
    thread: Any = None

    async def main() -> None:
        nonlocal gate, thread
        gate = Gate(exit_type()) if plain else AsyncGate(exit_type())
        caller = asyncio.create_task(cache.get_async("key", gate))
        await until_async(gate.entered.is_set)
        thread = spawn(cache.get, "key", lambda: "by itself")
        await until_waiting_async(cache, 1)
        if left:
            caller.cancel()
            await asyncio.wait([caller])
        gate.opened.set()
        await asyncio.Event().wait()

    with pytest.raises(exit_type):
        run(main())
    assert thread.result(5) == "by itself"
    assert cache.stats().loads_in_flight == 0


@pytest.mark.parametrize("plain", [False, True])
def test_stop_iteration_hangs_nobody(plain: bool) -> None:
    """A coroutine cannot raise StopIteration; Python makes a RuntimeError of it, whose cause it is."""

    async def main() -> None:
        cache = new_cache()
        gate: Any = Gate(StopIteration("empty")) if plain else AsyncGate(StopIteration("empty"))
        tasks = [asyncio.create_task(cache.get_async("key", gate)) for _ in range(3)]
        await until_waiting_async(cache, 2)
        gate.opened.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, RuntimeError)

    run(main())


def test_recursion_is_refused_for_the_same_key_only() -> None:
    """A coroutine function that awaits itself with the same arguments gets ReentrantLoad."""

    @cached
    async def countdown(number: int, step: int) -> int:
        return 0 if number <= 0 else 1 + await countdown(number - step, step)

    async def main() -> None:
        assert await countdown(50, 1) == 50
        with pytest.raises(ReentrantLoad):
            await countdown(5, 0)
        assert countdown.cache.stats().loads_in_flight == 0

    run(main())


def test_a_circle_of_two_tasks_is_refused_once() -> None:
    """Two loads that await each other: one gets ReentrantLoad, and no task hangs."""

    async def main() -> None:
        cache = new_cache()
        begun = 0

        async def crosswise(other: str) -> str:
            nonlocal begun
            begun += 1
            await until_async(lambda: begun == 2)
            try:
                return f"saw {await cache.get_async(other, lambda: 'never called')}"
            except ReentrantLoad:
                return "refused"

        pair = [cache.get_async("a", partial(crosswise, "b")), cache.get_async("b", partial(crosswise, "a"))]
        assert sorted(await asyncio.gather(*pair)) == ["refused", "saw refused"]

    run(main())


def test_a_wait_that_ends_early_does_not_hide_another_for_the_same_load() -> None:
    """Of two waits of one load for another, one is cancelled: a circle through the other is still found."""

    async def main() -> None:
        cache = new_cache()
        cancelled = asyncio.Event()

        async def outer() -> str:
            waits = [asyncio.create_task(cache.get_async("inner", lambda: "never called")) for _ in range(2)]
            await until_waiting_async(cache, 2)
            waits[0].cancel()
            await asyncio.wait(waits[:1])
            cancelled.set()
            return f"outer {await waits[1]}"

        async def inner() -> str:
            await cancelled.wait()
            with pytest.raises(ReentrantLoad):
                await cache.get_async("outer", lambda: "never called")
            return "inner"

        first = asyncio.create_task(cache.get_async("inner", inner))
        await asyncio.sleep(0)
        assert await cache.get_async("outer", outer) == "outer inner"
        assert await first == "inner"

    run(main())
