"""Batches for an event loop: when they are due, who gets what, and what happens when something goes wrong."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from otel_perfopt import BatchTimeout
from otel_perfopt.batch import AsyncBatchProcessor
from otel_perfopt.errors import BatchClosed, BatchError, QueueFull
from tests.batch.support import TIMEOUT, double, looped, settle, total
from tests.batch.support import Coroutine as Function
from tests.batch.support import Function as PlainFunction


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the body of a test on a loop; nobody may be left behind."""

    async def alone() -> None:
        await asyncio.wait_for(main(), TIMEOUT)
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(alone())


async def results(*futures: Any) -> list[Any]:
    return list(await asyncio.gather(*futures))


async def outcomes(futures: Any) -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


# when a batch is due ------------------------------------------------------------------------------------


def test_by_size() -> None:
    """The third item makes a batch of three; the rest waits."""

    async def main() -> None:
        function = Function()
        processor, _ = looped(function, batch_size=3)
        futures = [processor.add(number) for number in range(4)]
        assert await results(*futures[:3]) == [0, 2, 4]
        assert not futures[3].done()
        await processor.close()
        assert function.calls == [[0, 1, 2], [3]]
        assert (processor.stats().flushes_size, processor.stats().flushes_close) == (1, 1)

    run(main)


def test_by_the_time_that_the_first_item_has_waited() -> None:
    """Items that come later do not put it off."""

    async def main() -> None:
        function = Function()
        processor, clock = looped(function, batch_timeout="100ms")
        first = processor.add(1)
        clock.advance("60ms")
        second = processor.add(2)
        clock.advance("39ms")
        await settle()
        assert function.calls == []
        clock.advance("1ms")
        assert await results(first, second) == [2, 4]
        assert processor.stats().flushes_timeout == 1

    run(main)


def test_an_await_between_two_items_keeps_them_together() -> None:
    """Not only what comes in the same tick of the loop goes together."""

    async def main() -> None:
        function = Function()
        processor, clock = looped(function)
        first = processor.add(1)
        await settle()
        second = processor.add(2)
        clock.advance(1)
        await asyncio.gather(first, second)
        assert function.calls == [[1, 2]]

    run(main)


def test_without_a_timeout_the_items_of_one_tick_go_together() -> None:
    """``batch_timeout=0``, with the real clock."""

    async def main() -> None:
        function = Function()
        processor = AsyncBatchProcessor[int, int]("test", function, batch_timeout=0)
        assert await results(*[processor.add(number) for number in range(5)]) == [0, 2, 4, 6, 8]
        assert function.calls == [[0, 1, 2, 3, 4]]

    run(main)


def test_by_weight() -> None:
    """A batch weighs no more than the limit."""

    async def main() -> None:
        function = Function()
        processor, _ = looped(function, weigher=len, max_weight=10, batch_size=None)
        futures = [processor.add(text) for text in ("aaaa", "bbbb", "cccc", "d" * 30, "e")]
        await asyncio.gather(*futures[:4])
        await processor.close()
        assert function.calls == [["aaaa", "bbbb"], ["cccc"], ["d" * 30], ["e"]]

    run(main)


def test_by_hand() -> None:
    """`flush` waits for what was added, and tells whether it is done."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, clock = looped(function)
        first = processor.add(1)
        assert await processor.flush(timeout=0) is False
        late = asyncio.create_task(processor.flush(timeout=1))
        await settle()
        clock.advance(1)
        assert await late is False
        flushing = asyncio.create_task(processor.flush())
        await settle()
        assert not flushing.done()
        function.open()
        assert await flushing is True
        assert first.done()
        assert processor.stats().flushes_manual == 1

    run(main)


def test_no_more_batches_at_once_than_allowed() -> None:
    """Really at once: a third one waits until one of two has ended."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=1, max_concurrent=2)
        futures = [processor.add(number) for number in range(5)]
        await settle()
        assert function.calls == [[0], [1]]
        assert processor.stats().in_flight == 2
        function.open()
        assert await results(*futures) == [0, 2, 4, 6, 8]

    run(main)


def test_nothing_runs_while_nothing_is_queued() -> None:
    """No timer, no task, no thread: an idle processor costs nothing."""

    async def main() -> None:
        processor = AsyncBatchProcessor[int, int]("test", Function(), batch_size=2, batch_timeout=60)
        loop: Any = asyncio.get_running_loop()
        before = loop._scheduled[:], asyncio.all_tasks(), threading.active_count()
        await asyncio.gather(processor.add(1), processor.add(2))
        await settle()
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]
        assert (timers, asyncio.all_tasks(), threading.active_count()) == before

    run(main)


# what the function returns and raises -------------------------------------------------------------------


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], None, "ab", {1: 2, 3: 4}, (number for number in (1, 2))], ids=repr)
def test_what_is_not_one_result_for_each_item_is_everybodys_error(returned: Any) -> None:
    async def main() -> None:
        processor, _ = looped(Function(lambda _: returned), batch_size=2)
        found = await outcomes([processor.add(1), processor.add(2)])
        assert {type(error) for error in found} == {BatchError}

    run(main)


def test_an_exception_among_the_results_is_one_items_error() -> None:
    """The others get theirs."""

    async def main() -> None:
        error = ValueError("no")
        processor, _ = looped(Function(lambda _: [1, error, 3]), batch_size=3)
        assert await outcomes(processor.add(number) for number in range(3)) == [1, error, 3]
        assert (processor.stats().item_count, processor.stats().failed_count) == (2, 1)

    run(main)


@pytest.mark.parametrize("is_plain", [False, True], ids=["coroutine", "plain"])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3)],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_function_raises_reaches_its_callers_and_nobody_else(error: BaseException, is_plain: bool) -> None:
    """Nobody hangs, the loop does not stop, and the processor goes on."""

    def fail(items: list[int]) -> list[int]:
        if 0 in items:
            raise error
        return items

    async def main() -> None:
        processor, _ = looped(fail if is_plain else Function(fail), batch_size=2)
        failed = [processor.add(0), processor.add(1)]
        await asyncio.wait(failed)
        assert [future.exception() for future in failed] == [error, error]
        assert await results(processor.add(2), processor.add(3)) == [2, 3]

    run(main)


@pytest.mark.parametrize("how", ["raised", "raised by a plain function", "among the results"])
def test_stop_iteration(how: str) -> None:
    """An asyncio future refuses it; nobody may wait for ever because of that."""

    def body(items: list[int]) -> list[Any]:
        if how == "among the results":
            return [StopIteration(1), 2]
        raise StopIteration(1)

    async def main() -> None:
        processor, _ = looped(body if "plain" in how else Function(body), batch_size=2)
        found = await outcomes([processor.add(1), processor.add(2)])
        assert isinstance(found[0], RuntimeError)
        assert found[1] == 2 if how == "among the results" else isinstance(found[1], RuntimeError)

    run(main)


def test_a_task_factory_that_fails_is_its_callers_error() -> None:
    """It is part of what starts a batch."""

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        if "_run" in coroutine.__qualname__:
            raise OSError("no task")
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> None:
        processor, _ = looped(Function(), batch_size=1)
        asyncio.get_running_loop().set_task_factory(factory)
        with pytest.raises(OSError, match="no task"):
            await processor.add(1)
        asyncio.get_running_loop().set_task_factory(None)
        assert await processor.add(1) == 2

    run(main)


# plain functions ----------------------------------------------------------------------------------------


def test_a_plain_function_does_not_block_the_loop() -> None:
    """It runs in a worker; what it returns may be an awaitable."""

    async def main() -> None:
        function = PlainFunction(is_held=True)
        processor, _ = looped(function, batch_size=1)
        future = processor.add(1)
        await asyncio.get_running_loop().run_in_executor(None, function.wait_for_call)
        function.open()
        assert await future == 2

        async def answer(items: list[int]) -> list[int]:
            return items

        assert await looped(lambda items: answer(items), batch_size=1)[0].add(1) == 1

    run(main)


def test_a_plain_function_keeps_its_place_until_it_has_ended() -> None:
    """It cannot be cancelled: no other batch runs beside it, although its callers are gone."""

    async def main() -> None:
        function = PlainFunction(is_held=True)
        processor, _ = looped(function, batch_size=1)
        future = processor.add(1)
        await asyncio.get_running_loop().run_in_executor(None, function.wait_for_call)
        future.cancel()
        await settle()
        other = processor.add(2)
        assert processor.stats().in_flight == 1
        assert function.calls == [[1]]
        function.open()
        assert await other == 4

    run(main)


# callers that go ----------------------------------------------------------------------------------------


def test_one_caller_is_cancelled() -> None:
    """While it waits for the batch, and while the batch runs: the others get their results."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=3)
        tasks = [asyncio.ensure_future(processor.add(number)) for number in range(2)]
        tasks[0].cancel()
        tasks += [processor.add(2), processor.add(3)]
        await settle()
        assert function.calls == [[1, 2, 3]]
        tasks[2].cancel()
        await settle()
        function.open()
        assert await results(tasks[1], tasks[3]) == [2, 6]
        assert function.cancelled == 0
        assert processor.stats().failed_count == 2

    run(main)


def test_the_call_is_cancelled_when_every_caller_is_gone() -> None:
    """Not before; and the next batch runs."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=3)
        futures = [processor.add(number) for number in range(3)]
        await settle()
        for future in (futures[1], futures[0]):
            future.cancel()
            await settle()
            assert function.cancelled == 0
        futures[2].cancel()
        await settle()
        assert function.cancelled == 1
        function.open()
        assert await results(*[processor.add(number) for number in range(3)]) == [0, 2, 4]
        assert total(processor) == 6

    run(main)


def test_a_batch_whose_callers_go_before_its_first_step() -> None:
    """Its task is cancelled before it has begun; nothing is left behind."""

    async def main() -> None:
        function = Function()
        processor, _ = looped(function, batch_size=1)
        processor.add(1).cancel()
        await settle()
        assert processor.stats().in_flight == 0
        assert await processor.add(2) == 4
        assert total(processor) == 2

    run(main)


def test_cancelled_items_are_dropped_before_the_call() -> None:
    """A cancelled request does not run its query."""

    async def main() -> None:
        function = Function()
        processor, clock = looped(function)
        futures = [processor.add(number) for number in range(3)]
        futures[1].cancel()
        clock.advance(1)
        assert await results(futures[0], futures[2]) == [0, 4]
        processor.add(5).cancel()
        clock.advance(1)
        await settle()
        assert function.calls == [[0, 2]]
        assert (processor.stats().flush_count, processor.stats().failed_count) == (1, 2)

    run(main)


def test_equal_keys_are_one_item_with_a_future_for_each_caller() -> None:
    """Cancelling one caller cancels no other, before and during the call."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=2, dedupe=lambda item: item % 10)
        futures = [processor.add(number) for number in (1, 11, 21)]
        futures[0].cancel()
        futures.append(processor.add(2))
        await settle()
        assert function.calls == [[1, 2]]
        futures[1].cancel()
        function.open()
        assert await results(*futures[2:]) == [2, 4]
        assert (processor.stats().item_count, processor.stats().failed_count) == (2, 2)

    run(main)


def test_the_loop_ends_while_a_batch_runs() -> None:
    """Everybody is cancelled, and nobody complains."""

    async def main() -> None:
        processor, _ = looped(Function(is_held=True), batch_size=1)
        kept.append(asyncio.create_task(results(processor.add(1))))
        await settle()

    kept: list[Any] = []
    asyncio.run(main())
    assert kept[0].cancelled()


# time limits of items -----------------------------------------------------------------------------------


def test_a_time_limit_holds_for_the_result() -> None:
    """While the item waits for its batch, and while the batch runs."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, clock = looped(function, batch_size=2)
        patient, hurried = processor.add(1), processor.add(2, timeout=1)
        late = processor.add(3, timeout="2s")
        await settle()
        clock.advance(1)
        with pytest.raises(BatchTimeout, match="no result after"):
            await hurried
        clock.advance(1)
        with pytest.raises(TimeoutError):
            await late
        function.open()
        assert await patient == 2
        await processor.close()
        assert function.calls == [[1, 2]]
        assert (processor.stats().item_count, processor.stats().failed_count) == (1, 2)

    run(main)


def test_a_time_limit_far_away_puts_off_no_batch() -> None:
    """The timer is set for whatever comes first, also when that comes later."""

    async def main() -> None:
        processor, clock = looped(Function(), batch_timeout=1)
        limited = processor.add(1, timeout=60)
        clock.advance(1)
        assert await limited == 2
        held = looped(Function(is_held=True), batch_size=1, batch_timeout=1)[0]
        kept = held.add(1, timeout=60)
        lone = processor.add(2)
        clock.advance(1)
        assert await lone == 4
        await held.close(timeout=0)
        assert isinstance(kept.exception(), BatchClosed)

    run(main)


def test_the_call_is_cancelled_when_every_time_limit_is_over() -> None:
    """Nobody waits for it any more."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, clock = looped(function, batch_size=2)
        futures = [processor.add(number, timeout=1) for number in range(2)]
        await settle()
        clock.advance(1)
        await outcomes(futures)
        await settle()
        assert function.cancelled == 1

    run(main)


# a limited queue ----------------------------------------------------------------------------------------


def test_a_full_queue_raises() -> None:
    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=1, max_queue=2, on_full="raise")
        futures = [processor.add(number) for number in range(3)]
        with pytest.raises(QueueFull, match="2 wait already"):
            _ = processor.add(3)
        function.open()
        assert await results(*futures) == [0, 2, 4]
        assert (processor.stats().failed_count, total(processor)) == (1, 4)

    run(main)


def test_a_full_queue_drops_the_oldest() -> None:
    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=1, max_queue=2, on_full="drop_oldest")
        futures = [processor.add(number) for number in range(5)]
        await settle()
        function.open()
        found = await outcomes(futures)
        assert [type(each) for each in found] == [int, QueueFull, QueueFull, int, int]
        assert total(processor) == 5

    run(main)


def test_items_wait_for_room_in_order() -> None:
    """`add` does not block; the queue holds no more than it may."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, clock = looped(function, batch_size=2, max_queue=2)
        futures = [processor.add(number) for number in range(7)]
        hurried = processor.add(7, timeout=1)
        assert (processor.stats().queue_size, processor.stats().waiting) == (2, 4)
        futures[5].cancel()
        clock.advance(1)
        with pytest.raises(BatchTimeout):
            await hurried
        function.open()
        await asyncio.wait(futures[:5])
        await processor.close()
        assert function.calls == [[0, 1], [2, 3], [4, 6]]
        assert total(processor) == 8

    run(main)


def test_a_cancelled_item_makes_room() -> None:
    """Before the batch in progress has ended."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function, batch_size=1, max_queue=1)
        futures = [processor.add(number) for number in range(3)]
        await settle()
        futures[1].cancel()
        await settle()
        assert (processor.stats().queue_size, processor.stats().waiting) == (1, 0)
        function.open()
        assert await results(futures[0], futures[2]) == [0, 4]

    run(main)


# closing ------------------------------------------------------------------------------------------------


def test_closing_drains() -> None:
    """Also those who wait for room; nothing new is taken."""

    async def main() -> None:
        function = Function()
        async with looped(function, batch_size=2, max_queue=2)[0] as processor:
            futures = [processor.add(number) for number in range(7)]
        assert [future.result() for future in futures] == [2 * number for number in range(7)]
        with pytest.raises(BatchClosed, match="is closed"):
            _ = processor.add(1)
        assert await results(processor.close(), processor.close()) == [True, True]

    run(main)


def test_closing_in_time() -> None:
    """What is left then fails, and the call that runs is cancelled."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, clock = looped(function, batch_size=2)
        futures = [processor.add(number) for number in range(3)]
        await settle()
        closing = asyncio.create_task(processor.close(timeout=5))
        await settle()
        clock.advance(5)
        assert await closing is False
        assert [type(each) for each in await outcomes(futures)] == [BatchClosed] * 3
        await settle()
        assert function.cancelled == 1
        assert (processor.stats().item_count, processor.stats().failed_count) == (0, 3)

    run(main)


def test_a_close_that_is_cancelled_leaves_nobody_behind() -> None:
    """The processor is closed, and goes on draining."""

    async def main() -> None:
        function = Function(is_held=True)
        processor, _ = looped(function)
        future = processor.add(1)
        closing = asyncio.create_task(processor.close())
        await settle()
        closing.cancel()
        await settle()
        function.open()
        assert await future == 2
        assert await processor.close() is True

    run(main)


# loops --------------------------------------------------------------------------------------------------


def test_a_second_loop_after_the_first_is_closed() -> None:
    """A fresh start; what the first one has left behind is counted, and nobody hangs."""
    processor, _ = looped(double, batch_size=3)
    kept: list[Any] = []

    async def leave() -> None:
        kept.append(processor.add(1))

    async def use() -> None:
        assert await results(*[processor.add(number) for number in range(3)]) == [0, 2, 4]

    asyncio.run(leave())
    asyncio.run(use())
    assert (processor.stats().item_count, processor.stats().failed_count) == (3, 1)


def test_a_second_loop_while_the_first_is_open() -> None:
    """Its futures could not be answered from here."""
    processor, _ = looped(double)
    with asyncio.Runner() as runner:

        async def use() -> None:
            processor.add(1).cancel()

        runner.run(use())
        with asyncio.Runner() as other, pytest.raises(RuntimeError, match="another event loop"):
            other.run(use())


@pytest.mark.parametrize("method", ["add", "flush", "close"])
def test_without_a_loop(method: str) -> None:
    """From a thread without one, say; the error says what to do."""
    processor, _ = looped(double)
    call: Callable[[], object] = (
        partial(processor.add, 1) if method == "add" else partial(getattr(processor, method)().send, None)
    )
    with pytest.raises(RuntimeError, match="use a BatchProcessor, or"):
        call()


# inside the function ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_plain", [False, True], ids=["coroutine", "plain"])
def test_the_function_runs_in_an_empty_context(is_plain: bool) -> None:
    """Not in that of whoever came first, and neither do the batches after it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []

    def look(items: list[int]) -> list[int]:
        seen.append(variable.get())
        variable.set("left behind")
        return items

    async def main() -> None:
        processor, clock = looped(look if is_plain else Function(look), batch_size=2)
        variable.set("a request")
        await asyncio.gather(processor.add(1), processor.add(2))
        third = processor.add(3)
        clock.advance(1)
        await third
        assert seen == ["nothing", "nothing"]

    run(main)


def test_the_function_may_add_items() -> None:
    """If it does not wait for them."""

    async def main() -> None:
        added: list[Any] = []

        async def nested(items: list[int]) -> list[int]:
            added.extend(processor.add(item - 1) for item in items if item)
            return items

        processor, _ = looped(nested, batch_size=1)
        assert await processor.add(2) == 2
        assert await added[0] == 1
        assert await added[1] == 0

    run(main)


@pytest.mark.parametrize("method", ["flush", "close"])
def test_the_function_cannot_wait_for_itself(method: str) -> None:
    """A clear error instead of a deadlock."""

    async def main() -> None:
        async def waits(items: list[int]) -> list[int]:
            await getattr(processor, method)()
            return items

        processor, _ = looped(waits, batch_size=1)
        with pytest.raises(BatchError, match="wait for its own batches"):
            await processor.add(1)

    run(main)
