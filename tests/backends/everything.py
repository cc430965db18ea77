"""A process that does everything the library can tell, once more for each line of its input, and answers with its report as JSON.

Meanwhile a load, a batch and leases are under way and others wait for them, so that no gauge is zero; they end with the input.
"""

import gc
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from opentelemetry import trace

from otel_perfopt import (
    BatchProcessor,
    Cache,
    LazyLoader,
    PerfOptError,
    ResourcePool,
    configure,
    emit,
    get_performance_report,
    measure_performance,
    record_performance_metric,
    subscribe,
)
from otel_perfopt.testing import DictTier, Faults, FaultyTier, ManualClock

ORDERS = [0.002] * 18 + [0.3, 3.0]
"""The durations of the operation "order" that succeeds, for each line."""

released = threading.Event()
clock = ManualClock()


def work(*_: Any) -> str:
    time.sleep(0.002)  # what takes time in real life
    return "done"


def fail(*_: Any) -> Any:
    raise ValueError("as planned")


def hold(*_: Any) -> Any:
    released.wait()
    return ["held"]


users = Cache("users", max_size=3, ttl=None, tiers=[DictTier()])
prices = Cache("prices", max_size=30, ttl=60, refresh_after=30, stale_for=600, clock=clock)
pages = Cache("pages", max_size=100, max_weight=10, weigher=lambda _, page: len(page))
faults = Faults(seed=1, failure_rate=0.0)
remote: list[Cache] = []  # the one whose tier is out of order
flaky = ResourcePool("flaky", object, min_size=0, max_size=1)
broken = ResourcePool("broken", fail, min_size=0, max_size=2)
connections = ResourcePool("connections", object, min_size=1, max_size=2, max_waiting=1)
database = ResourcePool("database", object, min_size=1, max_size=2, semconv="db")
mails: BatchProcessor[str, str] = BatchProcessor(
    "mails", lambda items: [work() for _ in items], batch_size=5, batch_timeout=0.005
)
writes: BatchProcessor[float, Any] = BatchProcessor(
    "writes", fail, batch_size=100, batch_timeout=60, weigher=float, max_weight=10
)
uploads: BatchProcessor[Any, Any] = BatchProcessor("uploads", hold, batch_size=1, max_queue=4, on_full="raise")
model = LazyLoader(work, name="model")
missing = LazyLoader(fail, name="missing", error_ttl=0)


@measure_performance("tracked", track_memory=True)
def tracked() -> None:
    bytearray(1000)


@measure_performance("order.failed")
def failed() -> None:
    fail()


def begin() -> None:
    """Take what is held until the end, and let others wait for it."""
    for _ in range(2):
        threading.Thread(target=users.get, args=("held", hold), daemon=True).start()
    connections.acquire()
    connections.acquire()
    threading.Thread(target=connections.acquire, kwargs={"timeout": None}, daemon=True).start()
    database.acquire()
    uploads.add(0)
    while not uploads.stats().in_flight:  # else it would take a place in the queue
        time.sleep(0.001)
    for number in range(4):
        uploads.add(number)


def use_caches(number: int) -> None:
    for user in (0, 1, 2, 3, 0, 1, 2, 3, 3, 3):
        users.get((number, user), work)
    for name in ("broken", "broken"):
        with suppress(ValueError):
            users.get(name, fail)
    users.set("tagged", 1, tags=["t"])
    users.delete((number, 0))
    users.expire((number, 1))
    users.invalidate_tag("t")
    prices.set("old", 1)
    clock.advance(40)
    prices.get("old", work)  # also refreshes it
    while prices.stats().refreshes <= number or prices.stats().loads_in_flight:
        time.sleep(0.001)
    clock.advance(100)
    prices.get("old", fail)  # stale
    clock.advance(1000)
    prices.set("new", 1)  # sweeps what has expired
    prices.clear()
    for page in range(5):
        pages.set((number, page), "four")
    # By this clock the time to try the tier again never comes.
    remote[:] = [Cache("remote", tiers=[FaultyTier(DictTier(), faults)], clock=ManualClock())]
    with faults.outage():
        for key in range(5):
            remote[0].get(key, work)


def use_pools() -> None:
    with flaky.lease(), suppress(PerfOptError):
        flaky.acquire(timeout=0.01)
    flaky.destroy(flaky.acquire())
    flaky.lease().__enter__()  # and dropped
    gc.collect()
    with suppress(ValueError):
        broken.acquire()
    with suppress(PerfOptError):
        connections.acquire(timeout=1)  # refused: one waits already
    with database.lease(), suppress(PerfOptError):
        database.acquire(timeout=0.01)


def use_batches() -> None:
    for _ in range(5):
        last = mails.add("size")
    last.result()
    mails.add("timeout").result()
    mails.add("manual")
    mails.flush()
    futures = [writes.add(6), writes.add(6)]
    writes.flush()
    for future in futures:
        future.exception()
    with suppress(PerfOptError):
        uploads.add("refused")
    with BatchProcessor("closed", lambda items: [work() for _ in items], batch_timeout=60) as closed:
        closed.add("close")


def use_the_rest() -> None:
    model.reset()
    model.get()
    with suppress(ValueError):
        missing.get()
    tracked()
    with suppress(ValueError):
        failed()
    for duration in ORDERS:
        record_performance_metric("order", duration)
    record_performance_metric("order", 0.02, success=False, error_type="Refused")
    for event in ("order.paid", "order.lost"):
        emit(event, {"amount": 3})


def main() -> None:
    configure()
    subscriptions = [subscribe("order.paid", lambda _: None), subscribe("order.lost", fail)]
    begin()
    with trace.get_tracer("everything").start_as_current_span("all"):
        for number, _ in enumerate(sys.stdin):
            use_caches(number)
            use_pools()
            use_batches()
            use_the_rest()
            record_performance_metric("round", 1.0)  # the last: who sees it sees everything
            print(get_performance_report().to_json(indent=None), flush=True)
    released.set()
    for subscription in subscriptions:
        subscription.cancel()


if __name__ == "__main__":
    main()
