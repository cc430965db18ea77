"""Tasks, event loops and threads that want one lazy value."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from otel_perfopt.errors import LoadCancelled
from otel_perfopt.lazy import LazyLoader
from tests.cache.support import TIMEOUT, AsyncGate, Gate, LoopThread, passed, results, run, spawn, spawn_many, until_async
from tests.lazy.support import cancelled, in_progress, until_waiting, until_waiting_async

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def test_five_tasks_load_once_and_not_five_times() -> None:
    """As with an asynchronous cached_property without a lock."""

    async def main() -> None:
        gate = AsyncGate()
        loader: LazyLoader[str] = LazyLoader(gate)
        tasks = [asyncio.create_task(loader.get_async()) for _ in range(5)]
        await until_waiting_async(loader, 4)
        gate.opened.set()
        assert await asyncio.gather(*tasks) == ["value"] * 5
        assert (await loader.get_async(), loader.get(), gate.calls) == ("value", "value", 1)

    run(main())


def test_the_cancelled_owner_does_not_cancel_the_waiters() -> None:
    """As with a single flight that runs in the task of whoever came first."""

    async def main() -> None:
        gate = AsyncGate()
        loader: LazyLoader[str] = LazyLoader(gate)
        owner = asyncio.create_task(loader.get_async())
        waiters = [asyncio.create_task(loader.get_async()) for _ in range(3)]
        await until_waiting_async(loader, 3)
        await cancelled(owner)
        gate.opened.set()
        assert owner.cancelled()
        assert await asyncio.gather(*waiters) == ["value"] * 3
        assert (gate.calls, gate.cancelled) == (1, 0)

    run(main())


def test_a_cancelled_load_poisons_nothing() -> None:
    """As with a value that stays cancelled: when the last caller is gone, the load is cancelled, and the next one loads anew."""

    async def main() -> None:
        gate = AsyncGate()
        loader: LazyLoader[str] = LazyLoader(gate)
        tasks = [asyncio.create_task(loader.get_async()) for _ in range(3)]
        await until_waiting_async(loader, 2)
        for task in tasks:
            await cancelled(task)
        await until_async(lambda: gate.cancelled == 1)
        gate.opened.set()
        assert await loader.get_async() == "value"
        assert (gate.calls, gate.cancelled, in_progress(loader)) == (2, 1, 0)

    run(main())


def test_a_load_that_cancels_itself_is_an_error() -> None:
    """Whoever started it learns that it was cancelled; that is not kept, and who waits tries again."""

    async def main() -> None:
        calls = []

        async def load() -> str:
            calls.append(1)
            if len(calls) == 1:
                await until_waiting_async(loader, 1)
                raise asyncio.CancelledError
            return "second"

        loader = LazyLoader(load, name="suicidal")
        first, second = (asyncio.create_task(loader.get_async()) for _ in range(2))
        with pytest.raises(LoadCancelled, match="lazy value 'suicidal' was cancelled from inside") as info:
            await first
        assert info.value.context == {"lazy": "suicidal"}
        assert await second == "second"

    run(main())


@pytest.mark.parametrize("first", ["thread", "task"])
def test_threads_and_tasks_share_one_load_of_a_function(first: str) -> None:
    """It runs in the thread that came first, or in a worker for the task that came first."""
    gate = Gate()
    loader: LazyLoader[str] = LazyLoader(gate)

    async def main() -> None:
        leader: Any = spawn(loader.get) if first == "thread" else asyncio.create_task(loader.get_async())
        await until_async(gate.entered.is_set)
        tasks = [asyncio.create_task(loader.get_async()) for _ in range(3)]
        threads = spawn_many(3, loader.get)
        await until_waiting_async(loader, 6)
        gate.opened.set()
        assert await asyncio.gather(*tasks) == results(threads) == ["value"] * 3
        assert await (asyncio.wrap_future(leader) if first == "thread" else leader) == "value"

    run(main())
    assert gate.calls == 1


def test_several_loops_share_one_load() -> None:
    """The task runs on the loop of whoever came first; the others, and a thread, wait for it there."""
    calls = []

    async def load() -> str:
        calls.append(asyncio.get_running_loop())
        await until_waiting_async(loader, 3)
        return "value"

    loader = LazyLoader(load)
    with LoopThread() as one, LoopThread() as two:
        futures = [loop.submit(loader.get_async()) for loop in (one, two, one, two)]
        assert [future.result(TIMEOUT) for future in futures] == ["value"] * 4
    assert len(calls) == 1


def test_a_loop_that_stops_in_the_middle_of_a_load_keeps_nobody_waiting() -> None:
    """A caller on another loop loads for itself."""
    calls: list[str] = []

    async def load() -> str:
        calls.append("call")
        if len(calls) == 1:
            entered.set()
            await asyncio.Event().wait()
        return "value"

    entered = threading.Event()
    loader = LazyLoader(load)
    with LoopThread() as dead:
        abandoned = dead.submit(loader.get_async())
        passed(entered)
    assert run(loader.get_async()) == "value"
    assert (loader.get(), len(calls)) == ("value", 2)
    abandoned.cancel()


def test_a_loader_is_made_before_any_loop_and_used_by_many() -> None:
    """It has nothing of a loop in it: neither of one that runs now, nor of one that is closed."""
    gate = Gate()
    gate.opened.set()
    loader: LazyLoader[str] = LazyLoader(gate)
    for _ in range(3):
        assert run(loader.get_async()) == "value"
        loader.reset()
    assert gate.calls == 3


def test_a_function_runs_in_a_worker_with_the_context_of_the_caller() -> None:
    """The loop is not blocked; what the load sets in its context stays there."""

    def load() -> tuple[str, bool]:
        before = TENANT.get()
        TENANT.set("changed")
        return before, threading.current_thread() is threading.main_thread()

    async def main() -> None:
        TENANT.set("somebody")
        assert await LazyLoader(load).get_async() == ("somebody", False)
        assert TENANT.get() == "somebody"

    run(main())


def test_a_load_abandoned_in_its_worker_is_not_kept() -> None:
    """A thread cannot be cancelled; when everybody has left, its value is dropped, and the next caller loads anew."""

    async def main() -> None:
        gate, values = Gate("abandoned"), ["new"]
        loader: LazyLoader[str] = LazyLoader(lambda: gate() if not gate.calls else values.pop())
        task = asyncio.create_task(loader.get_async())
        await until_async(gate.entered.is_set)
        await cancelled(task)
        assert await loader.get_async() == "new"
        gate.opened.set()
        assert await loader.get_async() == "new"

    run(main())


def test_a_synchronous_caller_never_waits_for_a_coroutine_function() -> None:
    """Whether or not a task is loading the value: what a call does must not depend on that. A value that is there it gets."""

    async def main() -> None:
        gate = AsyncGate()
        loader: LazyLoader[str] = LazyLoader(gate, error_ttl=0)
        task = asyncio.create_task(loader.get_async())
        await gate.entered.wait()
        with pytest.raises(TypeError, match="get_async"):
            await asyncio.wrap_future(spawn(loader.get))
        gate.opened.set()
        assert await task == "value"
        assert await asyncio.wrap_future(spawn(loader.get)) == "value"

    run(main())


def test_a_kept_error_reaches_tasks_and_threads() -> None:
    """The error of a task is raised again by either kind of caller."""
    gate = Gate(OSError("down"))
    gate.opened.set()
    loader: LazyLoader[str] = LazyLoader(gate)
    with pytest.raises(OSError, match="down"):
        run(loader.get_async())
    with pytest.raises(OSError, match="down"):
        loader.get()
    with pytest.raises(OSError, match="down"):
        run(loader.get_async())
    assert gate.calls == 1


def test_a_keyboard_interrupt_in_a_worker_reaches_who_asked() -> None:
    """And their loop, as from any task; not the worker. The next caller loads anew."""
    values: list[Any] = [KeyboardInterrupt()]

    def load() -> str:
        if values:
            raise values.pop()
        return "value"

    loader = LazyLoader(load)
    with pytest.raises(KeyboardInterrupt):
        run(loader.get_async())
    assert run(loader.get_async()) == "value"


def test_a_blocked_loop_waits_for_a_thread() -> None:
    """A synchronous call on a loop blocks it, as any blocking call, and gets the value."""
    gate = Gate()
    loader: LazyLoader[str] = LazyLoader(gate)
    with LoopThread() as loop:
        leader = spawn(loader.get)
        passed(gate.entered)
        follower = loop.call(loader.get)
        until_waiting(loader, 1)
        gate.opened.set()
        assert follower.result(TIMEOUT) == leader.result(TIMEOUT) == "value"
