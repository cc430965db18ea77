"""Everything at once: threads, tasks of two loops, random cancels, failing loads and resets; and everybody gets an answer."""

import asyncio
import itertools
import random
import threading
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest

from otel_perfopt.lazy import LazyLoader
from tests.cache.support import TIMEOUT, LoopThread, run, spawn, until
from tests.lazy.support import in_progress, waiting

CALLERS = 150


class Source:
    """Numbers its loads, which yield to others, and sometimes fail or are interrupted."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.chance = 0.3
        self.numbers = itertools.count()

    def load(self) -> int:
        """Load in a thread."""
        number = next(self.numbers)
        threading.Event().wait(self.dice.choice((0.0, 0.0005)))
        self.meet_fate()
        return number

    async def load_async(self) -> int:
        """Load in a task."""
        number = next(self.numbers)
        for _ in range(self.dice.randrange(5)):
            await asyncio.sleep(0)
        self.meet_fate()
        return number

    def meet_fate(self) -> None:
        """Fail, or not."""
        if self.dice.random() < self.chance:
            raise self.dice.choice((OSError("down"), OSError("down"), asyncio.CancelledError()))


def kind_of(future: "Future[Any]") -> str:
    """What a caller got."""
    if future.cancelled():
        return "cancelled"
    error = future.exception(TIMEOUT)
    return "value" if error is None else type(error).__name__


async def still_pending() -> set[Any]:
    """Wait for all tasks of this loop, and return those that do not end; a cancelled future does not wait for its task."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return (await asyncio.wait(others, timeout=TIMEOUT))[1] if others else set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
@pytest.mark.parametrize("error_ttl", [0, None])
@pytest.mark.parametrize("seed", range(3))
def test_every_caller_gets_an_answer(kind: str, error_ttl: float | None, seed: int) -> None:
    """A value, an error of the load, or the cancellation that it was dealt; and no load stays behind."""
    dice, source = random.Random(seed), Source(seed)
    loader: LazyLoader[int] = LazyLoader(source.load if kind == "function" else source.load_async, error_ttl=error_ttl)
    futures: list[Future[Any]] = []
    with LoopThread() as one, LoopThread() as two:
        for _ in range(CALLERS):
            if kind == "function" and dice.random() < 0.4:
                futures.append(spawn(loader.get))
            else:
                futures.append(dice.choice((one, two)).submit(loader.get_async()))
                if dice.random() < 0.2:
                    futures[-1].cancel()
            if dice.random() < 0.3:
                loader.reset()
        kinds = Counter(map(kind_of, futures))
        for loop in (one, two):
            assert not loop.submit(still_pending()).result(2 * TIMEOUT)
        until(lambda: in_progress(loader) == 0)
    print(seed, kinds)
    assert set(kinds) <= {"value", "OSError", "CancelledError", "LoadCancelled", "cancelled"}
    assert waiting(loader) == 0
    values = [future.result() for future in futures if kind_of(future) == "value"]
    source.chance = 0.0
    loader.reset()
    assert run(loader.get_async()) > max(values, default=-1)


@pytest.mark.slow
def test_between_two_resets_nothing_is_loaded_twice() -> None:
    """Whoever comes between them gets the value of one load, which has begun after the first of them."""
    generation = -1

    def load() -> int:
        threading.Event().wait(0.0002)
        return generation

    loader = LazyLoader(load)
    for _ in range(50):
        generation += 1
        loader.reset()
        barrier = threading.Barrier(6, timeout=TIMEOUT)

        def call(barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            return loader.get()

        assert {future.result(TIMEOUT) for future in [spawn(call) for _ in range(6)]} == {generation}
