"""Batches for threads: when they are due, who gets what, and what happens when something goes wrong."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from otel_perfopt import BatchTimeout
from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor, get_batch_processor
from otel_perfopt.errors import BatchClosed, BatchError, ConfigurationError, QueueFull, UnknownName
from tests.batch.support import TIMEOUT, Function, double, threaded, total

Futures = list["Future[Any]"]


def results(futures: Futures) -> list[Any]:
    return [future.result(TIMEOUT) for future in futures]


def errors(futures: Futures) -> list[Any]:
    return [future.exception(TIMEOUT) for future in futures]


def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
    """Run a function in a thread of its own."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


# when a batch is due ------------------------------------------------------------------------------------


def test_by_size() -> None:
    """The third item makes a batch of three; the rest waits."""
    function = Function()
    with threaded(function, batch_size=3) as (processor, _):
        futures = [processor.add(number) for number in range(4)]
        assert results(futures[:3]) == [0, 2, 4]
        assert not futures[3].done()
        assert processor.stats().queue_size == 1
    assert function.calls == [[0, 1, 2], [3]]
    stats = processor.stats()
    assert (stats.flushes_size, stats.flushes_close, stats.flush_count) == (1, 1, 2)


def test_by_the_time_that_the_first_item_has_waited() -> None:
    """Items that come later do not put it off."""
    function = Function()
    with threaded(function, batch_timeout="100ms") as (processor, clock):
        first = processor.add(1)
        clock.advance("60ms")
        second = processor.add(2)
        clock.advance("39ms")
        assert function.calls == []
        clock.advance("1ms")
        assert results([first, second]) == [2, 4]
        third = processor.add(3)
        clock.advance("99ms")
        assert not third.done()
        clock.advance("1ms")
        assert third.result(TIMEOUT) == 6
    assert processor.stats().flushes_timeout == 2


def test_by_weight() -> None:
    """A batch weighs no more than the limit, and the item that is too much begins the next one."""
    function = Function()
    with threaded(function, weigher=len, max_weight=10, batch_size=None) as (processor, _):
        futures = [processor.add(text) for text in ("aaaa", "bbbb", "cccc", "d" * 30, "e")]
        assert results(futures[:4]) == ["aaaa" * 2, "bbbb" * 2, "cccc" * 2, "d" * 60]
        assert not futures[4].done()
    assert function.calls == [["aaaa", "bbbb"], ["cccc"], ["d" * 30], ["e"]]
    assert processor.stats().flushes_weight == 3


def test_by_hand() -> None:
    """`flush` waits for what was added, and tells whether it is done."""
    function = Function(is_held=True)
    with threaded(function) as (processor, _):
        future = processor.add(1)
        assert processor.flush(timeout=0) is False
        function.wait_for_call()
        flushing = spawn(processor.flush)
        function.open()
        assert flushing.result(TIMEOUT) is True
        assert future.done()
        assert processor.flush() is True
    assert processor.stats().flushes_manual == 1


def test_a_flush_does_not_wait_for_what_comes_later() -> None:
    """Or it would never end where items come all the time."""
    function = Function(is_held=True)
    with threaded(function) as (processor, _):
        processor.add(1)
        assert processor.flush(timeout=0) is False
        later = processor.add(2)
        function.open()
        assert processor.flush(timeout=TIMEOUT) is True
        assert later.done()


def test_without_a_timeout_a_lone_item_runs_at_once_and_others_gather_behind_it() -> None:
    """``batch_timeout=0``: what comes while a batch runs is the next batch."""
    function = Function(is_held=True)
    with threaded(function, batch_timeout=0) as (processor, _):
        first = processor.add(1)
        function.wait_for_call()
        others = [processor.add(number) for number in (2, 3, 4)]
        function.open()
        assert results([first, *others]) == [2, 4, 6, 8]
    assert function.calls == [[1], [2, 3, 4]]


def test_no_more_batches_at_once_than_allowed() -> None:
    """Really at once: a third one waits until one of two has ended."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_concurrent=2) as (processor, _):
        futures = [processor.add(number) for number in range(5)]
        function.wait_for_call()
        function.wait_for_call()
        assert processor.stats().in_flight == 2
        assert sorted(function.calls) == [[0], [1]]
        function.open()
        assert results(futures) == [0, 2, 4, 6, 8]


def test_items_are_in_the_order_of_coming() -> None:
    """Also when many batches wait for their turn."""
    function = Function(is_held=True)
    with threaded(function, batch_size=3) as (processor, _):
        for number in range(12):
            processor.add(number)
        function.open()
        processor.flush()
    assert [item for call in function.calls for item in call] == list(range(12))


def test_items_of_many_threads_go_together() -> None:
    """One call for all of them, and each gets its own result."""
    function = Function()
    with threaded(function, batch_size=8) as (processor, _), ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda number: processor.add(number).result(TIMEOUT), range(8))
        assert list(found) == [2 * number for number in range(8)]
    assert len(function.calls) == 1


# what the function returns ------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], []])
def test_the_wrong_number_of_results_is_everybodys_error(returned: list[int]) -> None:
    """It says how many were expected and how many came."""
    with threaded(Function(lambda _: returned), batch_size=2) as (processor, _):
        found = errors([processor.add(1), processor.add(2)])
        assert all(isinstance(error, BatchError) for error in found)
        assert f"returned {len(returned)} results for 2 items" in str(found[0])
        assert found[0].context == {"batch": "test", "expected": 2, "got": len(returned)}


@pytest.mark.parametrize("returned", [None, "ab", b"ab", 2, {1: 2, 3: 4}, {1, 2}, (number for number in (1, 2)), range], ids=repr)
def test_what_is_no_list_of_results_is_everybodys_error(returned: Any) -> None:
    """Not two characters of a string, and not a generator that runs later."""
    with threaded(Function(lambda _: returned), batch_size=2) as (processor, _):
        found = errors([processor.add(1), processor.add(2)])
        assert {type(error) for error in found} == {BatchError}
        assert "must return a list" in str(found[0])


def test_any_sequence_of_results_will_do() -> None:
    """A tuple, a range, and what only behaves like a sequence, as arrays do."""

    class Array:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return [4, 5][index]

        def __iter__(self) -> Any:
            return iter([4, 5])

    returned = iter([(0, 1), range(2, 4), Array()])
    with threaded(lambda _: next(returned), batch_size=2) as (processor, _):
        assert results([processor.add(number) for number in range(6)]) == [0, 1, 2, 3, 4, 5]


def test_an_exception_among_the_results_is_one_items_error() -> None:
    """The others get theirs."""
    with threaded(lambda _: [1, ValueError("no"), 3], batch_size=3) as (processor, _):
        futures = [processor.add(number) for number in range(3)]
        assert (futures[0].result(TIMEOUT), futures[2].result(TIMEOUT)) == (1, 3)
        with pytest.raises(ValueError, match="no"):
            futures[1].result(TIMEOUT)
    stats = processor.stats()
    assert (stats.item_count, stats.failed_count) == (2, 1)


def test_a_result_may_be_none() -> None:
    with threaded(lambda items: [None for _ in items], batch_size=1) as (processor, _):
        assert processor.add(1).result(TIMEOUT) is None


def test_the_function_may_change_its_list() -> None:
    """It is the function's own; results are counted against what was in it."""

    def consume(items: list[int]) -> list[int]:
        found = []
        while items:
            found.append(items.pop(0))
        return found

    with threaded(consume, batch_size=3) as (processor, _):
        assert results([processor.add(number) for number in range(3)]) == [0, 1, 2]


def test_a_coroutine_is_no_result() -> None:
    """A function that only turns out to be asynchronous is told where it belongs."""

    async def answer(items: list[int]) -> list[int]:
        return items

    with threaded(lambda items: answer(items), batch_size=1) as (processor, _):
        (error,) = errors([processor.add(1)])
    assert isinstance(error, TypeError)
    assert "AsyncBatchProcessor" in str(error)


# what the function raises -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), asyncio.CancelledError(), CancelledError(), KeyboardInterrupt(), SystemExit(3), StopIteration(4)],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_whatever_the_function_raises_reaches_its_callers_and_nobody_else(error: BaseException) -> None:
    """Nobody hangs, and the processor goes on."""

    def fail(items: list[int]) -> list[int]:
        if 0 in items:
            raise error
        return items

    with threaded(fail, batch_size=2) as (processor, _):
        failed = [processor.add(0), processor.add(1)]
        assert errors(failed) == [error, error]
        assert results([processor.add(2), processor.add(3)]) == [2, 3]
    stats = processor.stats()
    assert (stats.item_count, stats.failed_count) == (2, 2)


def test_an_error_is_not_kept_for_later_callers_of_the_same_key() -> None:
    """The next batch is a new call."""
    answers = iter([ValueError("once"), None])

    def sometimes(items: list[int]) -> list[int]:
        error = next(answers)
        if error is not None:
            raise error
        return items

    with threaded(sometimes, batch_size=1, dedupe=lambda item: item) as (processor, _):
        assert isinstance(processor.add(1).exception(TIMEOUT), ValueError)
        assert processor.add(1).result(TIMEOUT) == 1


def test_a_callback_that_asks_for_an_exit_takes_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """`set_result` runs the callbacks of a future, and lets their exits through."""

    def leave(_: "Future[Any]") -> None:
        raise SystemExit

    with threaded(double, batch_size=2) as (processor, _):
        first = processor.add(1)
        first.add_done_callback(leave)
        second = processor.add(2)
        assert results([first, second]) == [2, 4]
        assert processor.flush()
    assert total(processor) == 2
    assert "asked for an exit" in caplog.text


# callers that go ----------------------------------------------------------------------------------------


def test_a_cancelled_item_is_dropped_before_the_call() -> None:
    """The others of its batch do not notice."""
    function = Function()
    with threaded(function) as (processor, _):
        futures = [processor.add(number) for number in range(3)]
        assert futures[1].cancel()
        processor.flush()
        assert results([futures[0], futures[2]]) == [0, 4]
    assert function.calls == [[0, 2]]
    assert processor.stats().failed_count == 1


def test_a_cancelled_item_is_over_for_those_who_wait_for_several() -> None:
    """`concurrent.futures.wait` does not count it as done before it is told."""
    with threaded(double) as (processor, _):
        futures = [processor.add(number) for number in range(2)]
        futures[0].cancel()
        processor.flush()
        assert wait(futures, TIMEOUT).not_done == set()


def test_a_batch_whose_items_are_all_cancelled_is_not_run() -> None:
    """Nor does it count as one."""
    function = Function()
    with threaded(function) as (processor, clock):
        for number in range(3):
            processor.add(number).cancel()
        clock.advance(1)
        assert processor.flush(timeout=TIMEOUT)
    assert function.calls == []
    stats = processor.stats()
    assert (stats.flush_count, stats.failed_count) == (0, 3)


def test_cancelled_items_make_no_batch_full() -> None:
    """Three of four are gone: the batch of three is not there yet."""
    function = Function()
    with threaded(function, batch_size=3) as (processor, _):
        for number in range(2):
            processor.add(number).cancel()
        processor.add(2)
        assert processor.stats().queue_size == 1
        assert function.calls == []


def test_an_item_cannot_be_cancelled_any_more_when_its_batch_has_begun() -> None:
    """As with an executor."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1) as (processor, _):
        future = processor.add(1)
        function.wait_for_call()
        assert not future.cancel()
        function.open()
        assert future.result(TIMEOUT) == 2


# time limits of items -----------------------------------------------------------------------------------


def test_an_item_that_waits_too_long_fails_and_is_not_run() -> None:
    """While another batch takes its time."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1) as (processor, clock):
        slow = processor.add(1)
        function.wait_for_call()
        late = processor.add(2, timeout="1s")
        clock.advance(2)
        with pytest.raises(BatchTimeout, match="no result after"):
            late.result(TIMEOUT)
        function.open()
        assert slow.result(TIMEOUT) == 2
    assert function.calls == [[1]]
    assert processor.stats().failed_count == 1


def test_a_time_limit_holds_for_the_result() -> None:
    """Also when the batch runs already; the others get theirs, and nothing is counted twice."""
    function = Function(is_held=True)
    with threaded(function, batch_size=2) as (processor, clock):
        patient, hurried = processor.add(1), processor.add(2, timeout=1)
        function.wait_for_call()
        clock.advance(1)
        assert isinstance(hurried.exception(TIMEOUT), TimeoutError)
        function.open()
        assert patient.result(TIMEOUT) == 2
    assert total(processor) == 2


def test_a_time_limit_far_away_puts_off_no_batch() -> None:
    """The timer is set for whatever comes first, also when that comes later."""
    function = Function()
    with threaded(function, batch_size=2, batch_timeout=1) as (processor, clock):
        results([processor.add(1, timeout=60), processor.add(2)])
        late = processor.add(3, timeout=60)
        clock.advance(1)
        assert late.result(TIMEOUT) == 6
        lone = processor.add(4)
        clock.advance(1)
        assert lone.result(TIMEOUT) == 8


def test_a_time_limit_that_is_kept_changes_nothing() -> None:
    with threaded(double, batch_size=1) as (processor, clock):
        future = processor.add(1, timeout=1)
        assert future.result(TIMEOUT) == 2
        clock.advance(5)
        assert processor.stats().failed_count == 0


# a limited queue ----------------------------------------------------------------------------------------


def test_a_full_queue_raises() -> None:
    """Nothing silent: it is counted."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_queue=2, on_full="raise") as (processor, _):
        futures = [processor.add(0)]
        function.wait_for_call()
        futures += [processor.add(1), processor.add(2)]
        with pytest.raises(QueueFull, match="2 wait already"):
            processor.add(3)
        function.open()
        assert results(futures) == [0, 2, 4]
    assert (processor.stats().failed_count, total(processor)) == (1, 4)


def test_a_full_queue_drops_the_oldest() -> None:
    """Its caller is told."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_queue=2, on_full="drop_oldest") as (processor, _):
        futures = [processor.add(0)]
        function.wait_for_call()
        futures += [processor.add(number) for number in (1, 2, 3, 4)]
        assert [type(error) for error in errors(futures[1:3])] == [QueueFull, QueueFull]
        function.open()
        assert results([futures[0], *futures[3:]]) == [0, 6, 8]
    assert (processor.stats().failed_count, total(processor)) == (2, 5)


def blocked(processor: BatchProcessor[Any, Any], count: int) -> None:
    """Wait until so many callers wait for room."""
    waited = threading.Event()
    while processor.stats().waiting < count:
        waited.wait(0.001)


def test_a_full_queue_makes_callers_wait_in_order() -> None:
    """The one who came first gets the first room."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_queue=1) as (processor, _):
        first = processor.add(0)
        function.wait_for_call()
        second = processor.add(1)
        adding = []
        for number in (2, 3, 4):
            adding.append(spawn(processor.add, number))
            blocked(processor, len(adding))
        assert not any(each.done() for each in adding)
        function.open()
        assert results([first, second, *results(adding)]) == [0, 2, 4, 6, 8]
    assert function.calls == [[0], [1], [2], [3], [4]]


def test_a_cancelled_item_makes_room() -> None:
    """At once, not when the batch in progress has ended."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_queue=1) as (processor, _):
        processor.add(0)
        function.wait_for_call()
        second = processor.add(1)
        adding = spawn(processor.add, 2)
        blocked(processor, 1)
        second.cancel()
        third = adding.result(TIMEOUT)
        function.open()
        assert third.result(TIMEOUT) == 4
    assert function.calls == [[0], [2]]


def test_waiting_for_room_ends_with_the_time_limit() -> None:
    """`add` raises; the item was never taken, and nobody else loses his place."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1, max_queue=1) as (processor, clock):
        processor.add(0)
        function.wait_for_call()
        processor.add(1)
        hurried = spawn(processor.add, 2, timeout=1)
        blocked(processor, 1)
        patient = spawn(processor.add, 3)
        blocked(processor, 2)
        clock.advance(1)
        assert isinstance(hurried.exception(TIMEOUT), BatchTimeout)
        function.open()
        assert patient.result(TIMEOUT).result(TIMEOUT) == 6
    assert function.calls == [[0], [1], [3]]
    assert total(processor) == 4


def test_waiting_for_room_ends_with_the_processor() -> None:
    """`close` lets them in while it drains, and tells those for whom there is no time left."""
    function = Function(is_held=True)
    processor = BatchProcessor[int, int]("test", function, batch_size=1, max_queue=1)
    running = processor.add(0)
    function.wait_for_call()
    queued = processor.add(1)
    adding = spawn(processor.add, 2)
    blocked(processor, 1)
    assert processor.close(timeout=0) is False
    assert [type(error) for error in errors([running, queued, adding])] == [BatchClosed, BatchClosed, BatchClosed]
    function.open()


def test_the_function_cannot_wait_for_room_that_it_has_to_make() -> None:
    """It would never come."""
    found: list[BaseException] = []

    def greedy(items: list[int]) -> list[int]:
        if items == [1]:
            processor.add(2)
            with pytest.raises(QueueFull) as refused:
                processor.add(3)
            found.append(refused.value)
        return items

    with threaded(greedy, batch_size=1, max_queue=1) as (processor, _):
        assert processor.add(1).result(TIMEOUT) == 1
    assert len(found) == 1


# the same key -------------------------------------------------------------------------------------------


def test_equal_keys_are_one_item_with_a_future_for_each_caller() -> None:
    """Cancelling one cancels no other."""
    function = Function()
    with threaded(function, dedupe=lambda item: item % 10) as (processor, _):
        futures = [processor.add(number) for number in (1, 11, 2, 21)]
        assert len({id(future) for future in futures}) == 4
        futures[0].cancel()
        processor.flush()
        assert results(futures[1:]) == [2, 4, 2]
    assert function.calls == [[1, 2]]
    assert (processor.stats().item_count, processor.stats().failed_count) == (3, 1)


def test_an_error_of_a_shared_item_reaches_all_its_callers() -> None:
    with threaded(lambda items: [ValueError("no") for _ in items], dedupe=lambda item: 0) as (processor, _):
        futures = [processor.add(number) for number in range(3)]
        processor.flush()
        assert [type(error) for error in errors(futures)] == [ValueError] * 3


def test_a_key_without_a_hash_is_its_callers_error() -> None:
    """Nobody else notices."""
    with threaded(double, dedupe=lambda item: [item]) as (processor, _), pytest.raises(TypeError, match="unhashable"):
        processor.add(1)


@pytest.mark.parametrize("option", ["weigher", "dedupe"])
def test_a_weigher_or_a_key_that_raises_fails_its_item_alone(option: str) -> None:
    """The processor lives on."""

    def picky(item: int) -> int:
        if item == 1:
            raise ValueError("not this one")
        return item

    more = {"max_weight": 100} if option == "weigher" else {}
    with threaded(double, batch_size=2, **{option: picky}, **more) as (processor, _):
        first = processor.add(2)
        with pytest.raises(ValueError, match="not this one"):
            processor.add(1)
        assert results([first, processor.add(3)]) == [4, 6]


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "heavy", None, True])
def test_a_weight_is_a_number(weight: Any) -> None:
    refused = pytest.raises(ValueError, match="a weight is a number")
    with threaded(double, weigher=lambda _: weight, max_weight=1) as (processor, _), refused:
        processor.add(1)


# closing ------------------------------------------------------------------------------------------------


def test_closing_drains() -> None:
    """Nothing is dropped; nothing new is taken."""
    function = Function()
    processor = BatchProcessor[int, int]("test", function, batch_timeout="1h")
    futures = [processor.add(number) for number in range(25)]
    assert processor.close(timeout=TIMEOUT) is True
    assert [future.result(0) for future in futures] == [2 * number for number in range(25)]
    with pytest.raises(BatchClosed, match="is closed"):
        processor.add(1)
    assert processor.stats().flushes_close == 1
    assert repr(processor) == "<BatchProcessor 'test': closed, 0 queued, 0 in flight>"


def test_closing_in_time() -> None:
    """What is left then fails, also what runs; a result that comes later is nobody's, and nothing is counted twice."""
    function = Function(is_held=True)
    processor = BatchProcessor[int, int]("test", function, batch_size=2)
    futures = [processor.add(number) for number in range(3)]
    function.wait_for_call()
    assert processor.close(timeout=0.01) is False
    assert [type(error) for error in errors(futures)] == [BatchClosed] * 3
    function.open()
    assert processor.close(timeout=TIMEOUT) is True
    processor._workers.wait(TIMEOUT)
    assert (processor.stats().item_count, processor.stats().failed_count) == (0, 3)


def test_closing_again_and_from_several_threads() -> None:
    """All of them wait for the same end."""
    function = Function(is_held=True)
    processor = BatchProcessor[int, int]("test", function)
    future = processor.add(1)
    closing = [spawn(processor.close) for _ in range(4)]
    function.wait_for_call()
    function.open()
    assert results(closing) == [True] * 4
    assert future.result(0) == 2
    assert processor.close() is True


def test_a_with_block_that_fails_still_drains() -> None:
    futures: Futures = []

    def fail(processor: BatchProcessor[Any, Any]) -> None:
        with processor:
            futures.append(processor.add(1))
            raise ZeroDivisionError

    with threaded(double) as (processor, _), pytest.raises(ZeroDivisionError):
        fail(processor)
    assert futures[0].result(0) == 2


# inside the function ------------------------------------------------------------------------------------


def test_the_function_runs_in_an_empty_context() -> None:
    """Not in that of whoever came first."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    variable.set("a request")
    seen: list[str] = []

    def look(items: list[int]) -> list[int]:
        seen.append(variable.get())
        variable.set("left behind")
        return items

    with threaded(look, batch_size=1) as (processor, _):
        results([processor.add(1), processor.add(2)])
    assert seen == ["nothing", "nothing"]


def test_the_function_may_add_items() -> None:
    """They are a later batch."""

    def nested(items: list[int]) -> list[Any]:
        return [processor.add(item - 1) if item else None for item in items]

    with threaded(nested, batch_size=1) as (processor, _):
        inner = processor.add(2).result(TIMEOUT).result(TIMEOUT)
        assert inner.result(TIMEOUT) is None


@pytest.mark.parametrize("method", ["flush", "close"])
def test_the_function_cannot_wait_for_itself(method: str) -> None:
    """A clear error instead of a deadlock."""
    with threaded(lambda items: [getattr(processor, method)()], batch_size=1) as (processor, _):
        (error,) = errors([processor.add(1)])
    assert isinstance(error, BatchError)
    assert "wait for its own batches" in str(error)


def test_the_function_holds_no_lock() -> None:
    """While it runs, others add, cancel, look and flush."""
    function = Function(is_held=True)
    with threaded(function, batch_size=1) as (processor, _):
        running = processor.add(1)
        function.wait_for_call()
        spawn(lambda: (processor.add(2).cancel(), processor.stats(), processor.flush(timeout=0))).result(TIMEOUT)
        function.open()
        assert running.result(TIMEOUT) == 2


# options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_timeout": -1}, "batch_timeout=-1"),
        ({"batch_timeout": None}, "batch_timeout"),
        ({"batch_timeout": "soon"}, "batch_timeout='soon'"),
        ({"max_concurrent": 0}, "max_concurrent=0"),
        ({"max_concurrent": None}, "max_concurrent=None"),
        ({"max_queue": 0}, "max_queue=0"),
        ({"max_queue": 5}, "max_queue=5 is below batch_size=10"),
        ({"on_full": "block"}, "on_full='block'"),
        ({"max_weight": 5}, "max_weight= has no effect without weigher="),
        ({"weigher": len}, "weigher= has no effect without max_weight="),
        ({"weigher": len, "max_weight": 0}, "max_weight=0"),
        ({"weigher": 3, "max_weight": 1}, "weigher=3"),
        ({"dedupe": "key"}, "dedupe='key'"),
    ],
)
@pytest.mark.parametrize("kind", [BatchProcessor, AsyncBatchProcessor])
def test_options_that_cannot_work(kind: Any, options: dict[str, Any], message: str) -> None:
    """Refused with the option and its value."""
    with pytest.raises(ConfigurationError) as refused:
        kind("test", double, **options)
    assert message in str(refused.value)


@pytest.mark.parametrize("kind", [BatchProcessor, AsyncBatchProcessor])
def test_a_name_and_a_function_are_needed(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs a name"):
        kind("", double)
    with pytest.raises(TypeError, match="must be a function"):
        kind("test", None)


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_a_time_limit_is_a_positive_duration(timeout: Any) -> None:
    with threaded(double) as (processor, _), pytest.raises(ConfigurationError, match="timeout="):
        processor.add(1, timeout=timeout)


def test_a_coroutine_function_belongs_to_the_other_class() -> None:
    async def coroutine(items: list[int]) -> list[int]:
        return items

    class Callable_:
        async def __call__(self, items: list[int]) -> list[int]:
            return items

    for function in (coroutine, Callable_()):
        with pytest.raises(TypeError, match="AsyncBatchProcessor"):
            BatchProcessor("test", function)  # type: ignore[arg-type]


def test_the_pair_has_the_same_names_and_parameters() -> None:
    """What is learnt of one holds for the other."""

    def public(kind: type) -> dict[str, Any]:
        methods = {"__init__": kind.__init__} | {  # type: ignore[misc]
            name: value for name, value in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")
        }
        return {name: list(map(about, inspect.signature(method).parameters.values())) for name, method in methods.items()}

    def about(parameter: inspect.Parameter) -> tuple[Any, ...]:
        return parameter.name, parameter.kind, parameter.default

    assert public(BatchProcessor) == public(AsyncBatchProcessor)
    assert set(public(BatchProcessor)) == {"__init__", "add", "flush", "close", "stats"}


def test_processors_are_found_by_name() -> None:
    processor = BatchProcessor[Any, Any]("batches by name", double)
    assert get_batch_processor("batches by name") is processor
    with pytest.raises(TypeError, match="of type BatchProcessor, not AsyncBatchProcessor"):
        get_batch_processor("batches by name", AsyncBatchProcessor)
    with pytest.raises(UnknownName, match="batches by name"):
        get_batch_processor("no such batches")
