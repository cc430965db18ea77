"""Where a load runs under get_async: coroutine functions in tasks, everything else in worker threads."""

import asyncio
import inspect
import threading
import warnings
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_perfopt import ReentrantLoad, cached
from otel_perfopt.single_flight import waiting
from otel_perfopt.telemetry import background, spans
from tests.cache.support import TIMEOUT, Gate, LoopThread, new_cache, passed, run, spawn, until, until_async, until_waiting_async

TENANT: ContextVar[str] = ContextVar("TENANT", default="nobody")


async def coroutine_function(value: str = "coroutine") -> str:
    """A loader."""
    await asyncio.sleep(0)
    return value


class AsyncLoader:
    """A loader that is an object."""

    async def __call__(self) -> str:
        return "object"

    async def method(self) -> str:
        """Be a loader as a method."""
        return "method"


async def wait_for(value: str, gate: asyncio.Event) -> str:
    """Be a loader that needs its loop."""
    await gate.wait()
    return value


@pytest.mark.parametrize(
    ("loader", "value"),
    [
        (coroutine_function, "coroutine"),
        (partial(coroutine_function, "partial"), "partial"),
        (AsyncLoader(), "object"),
        (partial(AsyncLoader()), "object"),
        (AsyncLoader().method, "method"),
        (lambda: coroutine_function("lambda"), "lambda"),
        (lambda: "plain", "plain"),
        (dict, {}),
    ],
)
def test_any_loader_will_do(loader: Any, value: object) -> None:
    """Coroutine functions in any wrapping, plain functions, and plain functions that return a coroutine."""

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert await new_cache().get_async("key", loader) == value

    run(main())


def test_a_plain_function_runs_in_a_worker() -> None:
    """The loop goes on meanwhile."""

    async def main() -> None:
        cache, gate = new_cache(), Gate()
        names: list[str] = []

        def load() -> Any:
            names.append(threading.current_thread().name)
            return gate()

        task = asyncio.create_task(cache.get_async("key", load))
        await until_async(gate.entered.is_set)
        gate.opened.set()
        assert await task == "value"
        assert names[0].startswith("otel-perfopt")

    run(main())


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_load_sees_the_context_of_its_caller(kind: str) -> None:
    """Context variables are copied: the load sees them, and what it sets stays its own."""

    def plain() -> str:
        seen = TENANT.get()
        TENANT.set("the load's")
        return seen

    async def coroutine() -> str:
        return plain()

    async def main() -> None:
        TENANT.set("acme")
        assert await new_cache().get_async("key", plain if kind == "plain" else coroutine) == "acme"
        assert TENANT.get() == "acme"

    run(main())


def test_an_error_in_a_worker_keeps_its_traceback() -> None:
    """The innermost frame is the loader's."""

    def fails() -> None:
        raise OSError("down")

    async def main() -> None:
        with pytest.raises(OSError, match="down") as info:
            await new_cache().get_async("key", fails)
        assert info.traceback[-1].name == "fails"

    run(main())


def test_loads_may_wait_for_each_other_when_there_are_more_than_workers() -> None:
    """Forty loads in workers, each of which wants the next one's value with a synchronous call: none waits for ever."""
    count = 40
    assert count > background.MAX_WORKERS

    async def main() -> None:
        cache = new_cache()

        def chained(number: int) -> int:
            if number == count:
                return 0
            return 1 + int(cache.get(number + 1, partial(chained, number + 1)))

        tasks = [asyncio.create_task(cache.get_async(number, partial(chained, number))) for number in range(count + 1)]
        assert await asyncio.gather(*tasks) == [count - number for number in range(count + 1)]

    run(main())


def test_workers_that_wait_for_a_coroutine_which_needs_a_worker_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers wait for a load on the loop, and that load awaits one that needs a worker."""
    monkeypatch.setattr(waiting, "STALL_CHECK", 0.02)

    async def main() -> None:
        cache = new_cache()
        waiters = background.MAX_WORKERS + 2

        async def shared() -> str:
            await until_waiting_async(cache, background.MAX_WORKERS)  # every worker is taken
            return f"shared {await cache.get_async('inner', lambda: 'inner')}"

        def wants_shared() -> Any:
            return cache.get("shared", lambda: "never called")

        first = asyncio.create_task(cache.get_async("shared", shared))
        await asyncio.sleep(0)
        others = [asyncio.create_task(cache.get_async(number, wants_shared)) for number in range(waiters)]
        assert await first == "shared inner"
        assert await asyncio.gather(*others) == ["shared inner"] * waiters

    run(main())


def test_a_thread_joins_a_load_that_no_worker_has_begun() -> None:
    """A thread that wants the value gets it, with all workers busy and its load at the end of their queue."""
    gate = Gate()
    cache = new_cache()

    async def main() -> None:
        busy = [asyncio.create_task(cache.get_async(number, gate)) for number in range(background.MAX_WORKERS)]
        await until_async(lambda: gate.calls == background.MAX_WORKERS)
        queued = asyncio.create_task(cache.get_async("key", lambda: threading.current_thread().name))
        await asyncio.sleep(0)
        future = spawn(cache.get, "key", lambda: "never called")
        assert await queued == "otel-perfopt-lent"
        assert future.result(TIMEOUT) == "otel-perfopt-lent"
        gate.opened.set()
        await asyncio.gather(*busy)

    run(main())


def test_a_load_in_a_lent_thread_knows_that_it_is_a_load() -> None:
    """A thread joins so early that the loop has not begun: the loader still cannot wait for itself."""
    cache = new_cache()
    refused = threading.Event()

    def load() -> str:
        with pytest.raises(ReentrantLoad):
            cache.get("key", lambda: "never called")
        refused.set()
        return "value"

    async def main() -> None:
        leader = asyncio.create_task(cache.get_async("key", load))
        await asyncio.sleep(0)  # it has started the load, whose task has not taken its first step
        follower = spawn(cache.get, "key", lambda: "never called")
        passed(refused)
        assert await leader == "value"
        assert follower.result(TIMEOUT) == "value"

    run(main())


@pytest.mark.parametrize("kind", ["plain", "coroutine", "synchronous"])
def test_the_span_of_a_load_is_current_in_its_loader(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loader does is traced as a part of the load, in whatever thread."""
    monkeypatch.setattr(spans, "_tracer", TracerProvider().get_tracer("test"))

    def plain() -> Any:
        return getattr(trace.get_current_span(), "name", None)

    async def coroutine() -> Any:
        return plain()

    async def main() -> Any:
        return await new_cache().get_async("key", plain if kind == "plain" else coroutine)

    assert (new_cache().get("key", plain) if kind == "synchronous" else run(main())) == "load test"


def test_a_cancelled_load_leaves_the_queue() -> None:
    """A load that waited for a worker does not run after everybody has left."""
    gate, calls = Gate(), []
    cache = new_cache()

    async def main() -> None:
        busy = [asyncio.create_task(cache.get_async(number, gate)) for number in range(background.MAX_WORKERS)]
        await until_async(lambda: gate.calls == background.MAX_WORKERS)
        queued = asyncio.create_task(cache.get_async("key", lambda: calls.append(1)))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.wait([queued])
        gate.opened.set()
        await asyncio.gather(*busy)
        assert await cache.get_async("key", lambda: "new") == "new"
        assert calls == []

    run(main())


def test_a_load_abandoned_in_its_worker_stores_nothing() -> None:
    """A thread cannot be cancelled; when everybody has left, its value is dropped, and the next caller loads anew."""

    async def main() -> None:
        cache, gate = new_cache(), Gate("abandoned")
        task = asyncio.create_task(cache.get_async("key", gate))
        await until_async(gate.entered.is_set)
        task.cancel()
        await asyncio.wait([task])
        assert await cache.get_async("key", lambda: "new") == "new"
        gate.opened.set()
        assert await cache.get_async("key") == "new"

    run(main())


def test_a_synchronous_call_on_the_loop_refuses_the_loops_own_load() -> None:
    """It would block the loop that the load needs."""

    async def main() -> None:
        cache, gate = new_cache(), asyncio.Event()
        task = asyncio.create_task(cache.get_async("key", partial(wait_for, "value", gate)))
        await asyncio.sleep(0)
        with pytest.raises(ReentrantLoad, match="event loop"):
            cache.get("key", lambda: "never called")
        gate.set()
        assert await task == "value"
        assert cache.get("key") == "value"

    run(main())


def test_a_synchronous_call_on_a_loop_may_wait_for_a_thread() -> None:
    """It blocks the loop, as any blocking call, and gets the value."""
    cache, gate = new_cache(), Gate()
    with LoopThread() as loop:
        leader = spawn(cache.get, "key", gate)
        passed(gate.entered)
        follower = loop.call(lambda: cache.get("key", gate))
        until(lambda: cache.stats().load_waiters == 1)
        gate.opened.set()
        assert follower.result(TIMEOUT) == leader.result(TIMEOUT) == "value"


def test_a_circle_through_two_blocked_loops_is_refused() -> None:
    """Each loop runs a load, whose code blocks its loop with a synchronous call for the other's load."""
    cache, barrier = new_cache(), threading.Barrier(2, timeout=TIMEOUT)

    async def load(other: str) -> str:
        barrier.wait()
        try:
            return f"saw {cache.get(other, lambda: 'never called')}"
        except ReentrantLoad:
            return "refused"

    with LoopThread() as one, LoopThread() as two:
        futures = [
            one.submit(cache.get_async("a", partial(load, "b"))),
            two.submit(cache.get_async("b", partial(load, "a"))),
        ]
        assert sorted(future.result(TIMEOUT) for future in futures) == ["refused", "saw refused"]


def test_a_cached_function_of_each_kind_finds_out_by_itself() -> None:
    """Objects with an async `__call__` and partials of coroutine functions are cached as coroutine functions."""

    async def main() -> None:
        functions: list[Any] = [coroutine_function, partial(coroutine_function), AsyncLoader(), partial(AsyncLoader())]
        for function in functions:
            wrapped: Any = cached(function)
            assert inspect.iscoroutinefunction(wrapped)
            first, second = await wrapped(), await wrapped()
            assert first == second
            assert wrapped.cache.stats().hit_count == 1

    run(main())


def test_a_loop_with_eager_tasks_works_as_well() -> None:
    """A task factory that runs the first step at once, as Python 3.12 offers it."""
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("needs Python 3.12")

    async def at_once() -> str:
        return "at once"

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(eager)
        cache, gate = new_cache(), asyncio.Event()
        assert await cache.get_async("a", at_once) == "at once"
        assert await cache.get_async("a", at_once) == "at once"
        with pytest.raises(ReentrantLoad):
            await cache.get_async("b", lambda: cache.get("b", lambda: 1))
        tasks = [asyncio.create_task(cache.get_async("c", partial(wait_for, "value", gate))) for _ in range(3)]
        await until_waiting_async(cache, 2)
        gate.set()
        assert await asyncio.gather(*tasks) == ["value"] * 3
        assert TENANT.get() == "nobody"

    run(main())
