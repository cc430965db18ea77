"""Aggregated and derived events: one for many, exact, and none lost."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_perfopt import Cache, Event, emit_aggregated, measure_performance, subscribe
from otel_perfopt.telemetry import aggregate, background, derived
from otel_perfopt.testing import DictTier, ManualClock


@pytest.fixture(autouse=True)
def timers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None]]]:
    """Collects timers instead of starting a thread; jobs run at once."""
    started: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(background, "after", lambda seconds, callback: started.append((seconds, callback)))
    monkeypatch.setattr(background, "submit", lambda job: job())
    monkeypatch.setattr(aggregate, "_aggregates", {})
    monkeypatch.setattr(derived, "_running", False)
    monkeypatch.setattr(derived, "_last", {})
    return started


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Everything under ``agg.`` that is emitted while the test runs."""
    collected: list[Event] = []
    with subscribe("agg.*", collected.append):
        yield collected


def test_one_event_for_many(heard: list[Event], timers: list[Any]) -> None:
    """Count, sums, minima, maxima, and what all agree on; one timer for the interval."""
    for size, color in ((2, "red"), (5, "blue")):
        emit_aggregated("agg.cart", {"component": "shop", "items": size, "color": color, "ok": True}, aggregation_interval="2s")
    assert heard == []
    [(seconds, fire)] = timers
    assert seconds == 2.0
    fire()
    assert dict(heard[0].attributes) == {
        "component": "shop", "ok": True, "items.sum": 7, "items.min": 2, "items.max": 5, "count": 2,
    }  # fmt: skip


def test_the_next_interval_starts_with_its_first_event(heard: list[Event], timers: list[Any]) -> None:
    """An idle key has no timer and emits nothing."""
    emit_aggregated("agg.cart")
    timers.pop()[1]()
    aggregate.flush_aggregated()
    assert len(heard) == 1
    assert timers == []
    emit_aggregated("agg.cart")
    timers.pop()[1]()
    assert [event.attributes["count"] for event in heard] == [1, 1]


def test_the_default_key_is_the_component(heard: list[Event]) -> None:
    """Events of two components are two; a given key says otherwise."""
    for cache in ("a", "b", "a"):
        emit_aggregated("agg.hit", {"cache": cache})
        emit_aggregated("agg.all", {"cache": cache}, aggregation_key="all")
    aggregate.flush_aggregated()
    hits = {event.attributes["cache"]: event.attributes["count"] for event in heard if event.name == "agg.hit"}
    assert hits == {"a": 2, "b": 1}
    assert [dict(event.attributes) for event in heard if event.name == "agg.all"] == [{"count": 3}]


def test_a_component_that_has_no_hash_is_no_reason_to_raise(heard: list[Event]) -> None:
    """Telemetry never raises into user code."""
    emit_aggregated("agg.odd", {"component": ["unhashable"]})
    aggregate.flush_aggregated()
    assert heard[0].attributes["count"] == 1


def test_the_attributes_are_copied(heard: list[Event]) -> None:
    """Changing the dict after the call changes nothing."""
    attributes = {"component": "shop"}
    emit_aggregated("agg.copy", attributes)
    attributes["component"] = "other"
    aggregate.flush_aggregated()
    assert heard[0].attributes["component"] == "shop"


def test_eight_threads_and_flushes_meanwhile_lose_nothing(heard: list[Event]) -> None:
    """The counts of all emitted events add up."""
    done = threading.Event()

    def work() -> None:
        for _ in range(5_000):
            emit_aggregated("agg.threads", {"n": 1})

    def flush() -> None:
        while not done.is_set():
            aggregate.flush_aggregated()

    flusher = threading.Thread(target=flush)
    flusher.start()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    flusher.join()
    aggregate.flush_aggregated()
    assert sum(event.attributes["count"] for event in heard) == 40_000
    assert sum(event.attributes["n.sum"] for event in heard) == 40_000


def test_too_many_keys_are_counted_together(heard: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and no event is lost."""
    monkeypatch.setattr(aggregate, "MAX_KEYS", 2)
    for number in range(10):
        emit_aggregated("agg.keys", {"component": f"c{number}"})
    aggregate.flush_aggregated()
    assert sum(event.attributes["count"] for event in heard) == 10
    assert len(heard) <= 3


@pytest.mark.parametrize("interval", [0, -1, "soon"])
def test_an_interval_that_cannot_be_is_refused(interval: Any) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match="aggregation_interval"):
        emit_aggregated("agg.interval", aggregation_interval=interval)


def test_cache_and_operation_events_come_out_of_the_counts(timers: list[Any]) -> None:
    """From the first subscription on, with what is new since the last time, and without keys."""
    cache: Cache[str, int] = Cache("derived", max_size=2)
    cache.set("old", 1)
    cache.get("old")
    heard: list[Event] = []
    with subscribe("cache.*", heard.append), subscribe("performance.metric", heard.append):
        for key in ("a", "b", "c"):
            cache.get(key, lambda: 0)
            cache.get(key)

        @measure_performance("derived.operation")
        def operation(divisor: int) -> int:
            return 1 // divisor

        operation(1)
        with pytest.raises(ZeroDivisionError):
            operation(0)
        [(seconds, tick)] = timers
        assert seconds == 5.0
        tick()
        tick()
    mine = [(event.name, dict(event.attributes)) for event in heard if "derived" in str(event.attributes)]
    assert mine[:3] == [
        ("cache.hit", {"cache": "derived", "count": 3}),
        ("cache.miss", {"cache": "derived", "count": 3}),
        ("cache.eviction", {"cache": "derived", "reason": "capacity", "count": 2}),
    ]
    name, metric = mine[3]
    assert (name, metric["count"], metric["success"], metric["error"]) == ("performance.metric", 2, 1, 1)
    assert metric["duration.sum"] > 0
    assert len(mine) == 4


def test_hits_of_tiers_and_stale_answers_have_events_of_their_own(timers: list[Any]) -> None:
    """A hit that is not from memory tells its tier."""
    clock = ManualClock()
    tier = DictTier(clock=clock)
    options: dict[str, Any] = {"ttl": 60, "stale_for": 60, "clock": clock, "wall_clock": clock}
    caches = [Cache("derived.tiered", tiers=[each], **options) for each in (tier, tier.peer())]
    heard: list[Event] = []
    with subscribe("cache.*", heard.append):
        caches[0].set("key", 1)
        assert [cache.get("key") for cache in caches] == [1, 1]
        clock.advance(61)
        assert caches[0].get("key", lambda: 1 // 0) == 1
        timers.pop()[1]()
    mine = [(event.name, dict(event.attributes)) for event in heard if event.attributes["cache"] == "derived.tiered"]
    assert sorted(mine, key=str) == [
        ("cache.hit", {"cache": "derived.tiered", "count": 1}),
        ("cache.hit", {"cache": "derived.tiered", "tier": "dict", "count": 1}),
        ("cache.stale", {"cache": "derived.tiered", "count": 1}),
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_only_its_own_events() -> None:
    """What the parent collected is not emitted twice, and the child's timers work."""
    script = """
import os, sys
from otel_perfopt import emit_aggregated, subscribe
from otel_perfopt.telemetry.aggregate import flush_aggregated
seen = []
subscribe("fork.*", lambda event: seen.append(event.attributes["count"]))
emit_aggregated("fork.event"); emit_aggregated("fork.event")
if (child := os.fork()) == 0:
    emit_aggregated("fork.event")
    flush_aggregated()
    os._exit(0 if seen == [1] else 1)
status = os.waitpid(child, 0)[1]
flush_aggregated()
assert seen == [2], seen
sys.exit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=30)


def test_the_interval_ends_by_itself() -> None:
    """With the real thread: nobody has to flush."""
    script = """
import threading
from otel_perfopt import emit_aggregated, subscribe
arrived = threading.Event()
subscribe("real.event", lambda event: arrived.set())
emit_aggregated("real.event", aggregation_interval=0.01)
assert arrived.wait(20)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_the_documented_events_are_those_that_are_told() -> None:
    """The table of docs/events.md has each derived event, and no other."""
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "events.md"
    documented = re.findall(r"^\| `([a-z.]+)` \| every 5 s", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(documented) == derived.NAMES
    assert derived.INTERVAL == 5.0
