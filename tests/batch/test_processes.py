"""Forks and exits: a child starts empty, and a process that ends does what is queued."""

import os
from collections.abc import Callable
from typing import Any

import pytest

Script = Callable[..., Any]

FORK = """
import asyncio, json, os, sys, threading, warnings
from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads

def double(items):
    return [2 * item for item in items]

def in_child(check):
    pid = os.fork()
    if pid == 0:
        threading.Timer(20, os._exit, (3,)).start()
        try:
            check()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
def test_a_child_starts_empty(script: Script) -> None:
    """Its queue is empty, its counts are zero, and it works; what the parent has queued is the parent's."""
    code = f"""{FORK}
entered, opened = threading.Event(), threading.Event()

def slow(items):
    entered.set()
    assert opened.wait(20)
    return double(items)

processor = BatchProcessor("forked", slow, batch_size=2, batch_timeout=60, max_queue=2)
running = [processor.add(number) for number in range(2)]
entered.wait(20)
queued = [processor.add(2)]

def check():
    stats = processor.stats()
    assert (stats.queue_size, stats.in_flight, stats.item_count, stats.flush_count) == (0, 0, 0, 0), stats
    opened.set()
    assert [future.result(20) for future in [processor.add(5), processor.add(6)]] == [10, 12]
    assert processor.close(timeout=20)
    assert not queued[0].done()
    assert processor.stats().item_count == 2

in_child(check)
opened.set()
queued.append(processor.add(3))
print(json.dumps([future.result(20) for future in running + queued]))
"""
    assert script(code) == [0, 2, 4, 6]


@needs_fork
def test_children_of_a_busy_process_do_not_hang(script: Script) -> None:
    """Forks at any moment, while threads add, cancel and flush."""
    code = f"""{FORK}
processor = BatchProcessor("busy", double, batch_size=5, batch_timeout=0.001, max_queue=10, dedupe=lambda item: item % 7)
stop = threading.Event()

def churn():
    while not stop.is_set():
        for number in range(9):
            processor.add(number, timeout=5).cancel() if number % 3 else processor.add(number).result(20)

threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads:
    thread.start()

def check():
    assert processor.add(1).result(20) == 2
    assert processor.flush(timeout=20)

for _ in range(20):
    in_child(check)
stop.set()
for thread in threads:
    thread.join(20)
print(json.dumps(processor.close(timeout=20)))
"""
    assert script(code) is True


@needs_fork
def test_a_fork_inside_the_function(script: Script) -> None:
    """The child's only thread is in the middle of a batch; both finish it."""
    code = f"""{FORK}
def fork(items):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return double(items)
    return [None for _ in items]

processor = BatchProcessor("inside", fork, batch_size=1)
future = processor.add(1)
future.add_done_callback(lambda done: os._exit(0) if done.result() is None else None)
print(json.dumps(future.result(20)))
"""
    assert script(code) == 2


@needs_fork
def test_a_child_of_a_loop(script: Script) -> None:
    """It has another loop, and starts afresh."""
    code = f"""{FORK}
async def double_async(items):
    return double(items)

processor = AsyncBatchProcessor("forked", double_async, batch_size=2, batch_timeout=60)

async def use():
    return await asyncio.gather(processor.add(1), processor.add(2))

def check():
    assert processor.stats().queue_size == 0
    with asyncio.Runner() as runner:
        assert runner.get_loop().run_until_complete(use()) == [2, 4]

async def main():
    queued = processor.add(3)
    pid = os.fork()
    if pid == 0:
        threading.Timer(20, os._exit, (3,)).start()
        asyncio.events._set_running_loop(None)
        try:
            check()
        finally:
            os._exit(0 if processor.stats().item_count == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    return await asyncio.gather(queued, processor.add(4))

print(json.dumps(asyncio.run(main())))
"""
    assert script(code) == [6, 8]


def test_what_is_queued_at_the_end_is_done(script: Script) -> None:
    """And what comes after that is refused, not lost without a word."""
    code = """
import json
from otel_perfopt.batch import BatchProcessor
from otel_perfopt.errors import BatchClosed
from otel_perfopt.telemetry import lifecycle

processor = BatchProcessor("exit", lambda items: items, batch_timeout=60)
idle = BatchProcessor("idle", lambda items: items)
futures = [processor.add(number) for number in range(25)]
flush = lifecycle.flush  # what the library does next

def tell():
    flush()
    try:
        refused = idle.add(1) is None
    except BatchClosed:
        refused = True
    print(json.dumps([[future.result(0) for future in futures], refused, processor.stats().flushes_close]), flush=True)

lifecycle.flush = tell
"""
    assert script(code) == [list(range(25)), True, 1]


def test_a_function_that_hangs_does_not_hold_up_the_end(script: Script) -> None:
    """Its callers are told."""
    code = """
import json, threading
from otel_perfopt.batch import BatchProcessor
from otel_perfopt.telemetry import lifecycle

entered = threading.Event()

def hang(items):
    entered.set()
    threading.Event().wait()

processor = BatchProcessor("hanging", hang, batch_size=1)
futures = [processor.add(1), processor.add(2)]
entered.wait(20)
flush = lifecycle.flush  # what the library does next

def tell():
    flush()
    print(json.dumps([type(future.exception(0)).__name__ for future in futures]), flush=True)

lifecycle.flush = tell
"""
    assert script(code, timeout=20) == ["BatchClosed", "BatchClosed"]


def test_a_loop_that_is_gone_does_not_hold_up_the_end(script: Script) -> None:
    """Nobody can be told, and nobody waits."""
    code = """
import asyncio, json
from otel_perfopt.batch import AsyncBatchProcessor

async def process(items):
    return items

processor = AsyncBatchProcessor("gone", process, batch_timeout=60)

async def main():
    processor.add(1)

asyncio.run(main())
print(json.dumps(processor.stats().queue_size))
"""
    assert script(code, timeout=20) == 1


def test_importing_starts_nothing_and_stays_light(script: Script) -> None:
    """No thread, no pool of threads or processes."""
    code = """
import json, sys, threading
import otel_perfopt.batch
heavy = [name for name in ("concurrent.futures.thread", "concurrent.futures.process", "multiprocessing") if name in sys.modules]
print(json.dumps([threading.active_count(), heavy]))
"""
    assert script(code) == [1, []]
