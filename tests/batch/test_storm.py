"""Storms: random cancels, failing functions, time limits, flushes and closes; all get an answer, and everything is counted.

The seed of each storm is in its name; what the threads make of it differs from run to run, and nothing may depend on it.
"""

import asyncio
import random
import threading
from concurrent.futures import Future, wait
from typing import Any

import pytest

from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.errors import BatchClosed, BatchError, QueueFull
from tests.batch.support import TIMEOUT, total

EXPECTED = (BatchError, ValueError, KeyboardInterrupt, asyncio.CancelledError)


def options(random_: random.Random) -> dict[str, Any]:
    """Any limits."""
    size = random_.choice([1, 2, 5, 50])
    max_queue = random_.choice([None, size, 3 * size])
    return {
        "batch_size": size,
        "batch_timeout": random_.choice([0, 0.0005, 0.005]),
        "max_concurrent": random_.choice([1, 2, 4]),
        "max_queue": max_queue,
        "on_full": random_.choice(["wait", "raise", "drop_oldest"]),
        **random_.choice([{}, {"weigher": lambda item: item % 7, "max_weight": 20}]),
        **random_.choice([{}, {"dedupe": lambda item: item % 50}]),
    }


def results(random_: random.Random, items: list[int]) -> Any:
    """Mostly the results; now and then whatever can go wrong."""
    chance = random_.random()
    if chance < 0.05:
        raise random_.choice([ValueError("storm"), KeyboardInterrupt(), asyncio.CancelledError()])
    if chance < 0.1:
        return items[1:]
    return [ValueError(item) if random_.random() < 0.05 else item + 1 for item in items]


def check(answers: list[tuple[int, Any]], processor: BatchProcessor[Any, Any] | AsyncBatchProcessor[Any, Any]) -> None:
    """Every result belongs to its item, every error has a reason, and the books are in order."""
    for item, answer in answers:
        if isinstance(answer, int):
            dedupe = processor._options.dedupe
            assert (answer - 1 - item) % (1 if dedupe is None else 50) == 0
            assert dedupe is not None or answer == item + 1
        else:
            assert answer == "cancelled" or isinstance(answer, EXPECTED)
    assert total(processor) == len(answers)
    assert processor.stats().item_count == sum(isinstance(answer, int) for _, answer in answers)
    batches = processor._batches
    assert batches.is_idle()
    assert not batches.left
    assert not batches.evicted
    assert not batches._deadlines or all(entry.future.done() for _, _, entry in batches._deadlines)


@pytest.mark.parametrize("seed", range(12))
def test_a_storm_of_threads(seed: int) -> None:
    """Eight threads add and cancel; one flushes; in the end it is closed, with time or without."""
    random_ = random.Random(seed)
    at_most = options(random_)["max_concurrent"]
    busy = threading.Semaphore(at_most)

    def process(items: list[int]) -> Any:
        assert busy.acquire(blocking=False), "too many batches at once"
        try:
            return results(random.Random(sum(items)), items)
        finally:
            busy.release()

    processor = BatchProcessor[int, int]("storm", process, **options(random.Random(seed)))
    answers: list[tuple[int, Any]] = []

    def callers(number: int) -> None:
        mine = random.Random(f"{seed} {number}")
        added: list[tuple[int, Future[int]]] = []
        for item in range(number, 800, 8):
            try:
                future = processor.add(item, timeout=mine.choice([None, None, 0.001, 5]))
            except (QueueFull, BatchClosed, TimeoutError) as error:
                answers.append((item, error))
                continue
            added.append((item, future))
            if mine.random() < 0.2:
                mine.choice(added)[1].cancel()
            if mine.random() < 0.02:
                processor.flush(timeout=mine.choice([0, 0.001]))
        for item, future in added:
            wait([future], TIMEOUT)
            answers.append((item, "cancelled" if future.cancelled() else future.exception(0) or future.result()))

    threads = [threading.Thread(target=callers, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    if seed % 2:
        threads[0].join(random_.random() / 100)
        processor.close(timeout=random_.choice([0, 0.01, None]))
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert processor.close(timeout=TIMEOUT)
    assert processor._workers.wait(TIMEOUT)
    assert len(answers) == 800
    check(answers, processor)


@pytest.mark.parametrize("seed", range(30))
def test_a_storm_of_tasks(seed: int) -> None:
    """Tasks add, wait, are cancelled and give up; in the end it is closed, with time or without."""
    random_ = random.Random(seed)
    chosen = options(random_)
    running = 0
    answers: list[tuple[int, Any]] = []

    async def process(items: list[int]) -> Any:
        nonlocal running
        running += 1
        assert running <= chosen["max_concurrent"], "too many batches at once"
        try:
            await asyncio.sleep(random_.choice([0, 0, 0.001]))
            return results(random_, items)
        finally:
            running -= 1

    async def caller(processor: AsyncBatchProcessor[int, int], item: int) -> None:
        future = None
        try:
            await asyncio.sleep(random_.random() / 50)
            future = processor.add(item, timeout=random_.choice([None, None, 0.001, 5]))
            answer: Any = await future
        except (KeyboardInterrupt, Exception) as error:
            answer = error
        except asyncio.CancelledError:
            if future is None:
                return  # cancelled before it could add anything
            # The future may have had its result already, or the function's own CancelledError.
            answer = "cancelled" if future.cancelled() else future.exception() or future.result()
        answers.append((item, answer))

    async def main() -> AsyncBatchProcessor[int, int]:
        processor = AsyncBatchProcessor[int, int]("storm", process, **chosen)
        tasks = [asyncio.create_task(caller(processor, item)) for item in range(400)]
        for _ in range(40):
            await asyncio.sleep(random_.choice([0, 0, 0.001]))
            random_.choice(tasks).cancel()
        if seed % 3 == 0:
            await processor.flush(timeout=0.001)
        if seed % 2:
            await processor.close(timeout=random_.choice([0, 0.005, None]))
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), TIMEOUT)
        assert await processor.close(timeout=TIMEOUT)
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return processor

    processor = asyncio.run(main())
    assert len(answers) > 300
    check(answers, processor)
