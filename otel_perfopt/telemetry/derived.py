"""The events of caches and operations: derived from their counts every few seconds, so that a hit costs nothing more.

``cache.hit``, ``cache.miss``, ``cache.stale`` and ``cache.eviction`` tell how many since the last time, per cache;
``performance.metric`` tells count, successes, errors and durations per operation. Keys of caches are never told.
"""

import threading
from collections.abc import Iterator
from typing import Any

from otel_perfopt.telemetry import background, instruments, names
from otel_perfopt.telemetry.events import Subscription, emit, on_subscribe

__all__ = ("NAMES", "flush_derived", "start_deriving")

INTERVAL = 5.0
NAMES = ("cache.hit", "cache.miss", "cache.stale", "cache.eviction", "performance.metric")

_running = False
_last: dict[tuple[str, ...], float] = {}
_lock = threading.RLock()


def start_deriving() -> None:
    """Emit what is counted from now on, every 5 seconds and at exit; a second call changes nothing."""
    global _running
    with _lock:
        if _running:
            return
        _running = True
        for _ in _changes():
            pass  # what was counted before is not news
    background.after(INTERVAL, _tick)


def flush_derived() -> None:
    """Emit now what was counted since the last time, if anybody wanted these events."""
    with _lock:
        changes = list(_changes()) if _running else []
    for name, attributes in changes:
        emit(name, attributes)


def _tick() -> None:
    background.after(INTERVAL, _tick)
    background.submit(flush_derived)


def _changes() -> Iterator[tuple[str, dict[str, Any]]]:
    for reading in instruments.observe(names.CACHE_REQUESTS):
        cache, result = reading.attributes[names.CACHE_NAME], reading.attributes[names.CACHE_RESULT]
        tier = reading.attributes.get(names.CACHE_TIER, names.MEMORY_TIER)
        if count := _change(("cache", cache, result, tier), reading.value):
            where = {} if tier == names.MEMORY_TIER else {"tier": tier}
            yield f"cache.{result}", {"cache": cache, **where, "count": count}
    for reading in instruments.observe(names.CACHE_EVICTIONS):
        cache, reason = reading.attributes[names.CACHE_NAME], reading.attributes[names.EVICTION_REASON]
        if count := _change(("eviction", cache, reason), reading.value):
            yield "cache.eviction", {"cache": cache, "reason": reason, "count": count}
    yield from _operation_changes()


def _operation_changes() -> Iterator[tuple[str, dict[str, Any]]]:
    news: dict[str, dict[str, Any]] = {}
    for metric, latency in instruments.latencies():
        if metric is not names.OPERATION_DURATION:
            continue
        operation, error = latency.attributes[names.OPERATION_NAME], latency.attributes.get(names.ERROR_TYPE)
        histogram = latency.snapshot()
        count = _change(("count", operation, error or ""), histogram.count)
        seconds = _change(("seconds", operation, error or ""), histogram.total)
        if count:
            event = news.setdefault(
                operation, {"operation": operation, "count": 0, "success": 0, "error": 0, "duration.sum": 0.0}
            )
            event["count"] += count
            event["success" if error is None else "error"] += count
            event["duration.sum"] += seconds
    for event in news.values():
        yield "performance.metric", event


def _change(key: tuple[str, ...], value: float) -> Any:
    change = value - _last.get(key, 0)
    _last[key] = value
    return change


def _after_fork() -> None:
    """The child counts from zero, and its timers have to start again."""
    global _running, _lock
    _lock = threading.RLock()
    _last.clear()
    if _running:
        _running = False
        start_deriving()


def _start_if_wanted(subscription: Subscription) -> None:
    if any(subscription.matches(name) for name in NAMES):
        start_deriving()


instruments.on_fork(_after_fork)
on_subscribe(_start_if_wanted)
