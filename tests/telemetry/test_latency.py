"""Latencies: nothing lost and nothing twice, whatever comes between; replays that can be cut short."""

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_perfopt import record_performance_metric
from otel_perfopt._core.cells import Histogram
from otel_perfopt.telemetry import instruments, names
from otel_perfopt.telemetry.latency import BUFFER, Latency

SECONDS = st.floats(0, 1e6).map(lambda seconds: seconds if seconds >= 1e-9 else 0.0)


def figures(values: list[float]) -> tuple[int, float, float, float]:
    """Count, sum and extremes."""
    return len(values), math.fsum(values), min(values, default=0.0), max(values, default=0.0)


def nearly(values: list[float]) -> tuple[Any, ...]:
    """The same, with room for rounding in the sum."""
    count, total, least, most = figures(values)
    return count, pytest.approx(total, rel=1e-9, abs=1e-9 * count), least, most


def snapshot(series: Latency) -> tuple[int, float, float, float]:
    """The figures that a report shows."""
    histogram = series.snapshot()
    assert histogram.count == histogram.zeros + sum(histogram.buckets)
    return (histogram.count, histogram.total, histogram.minimum, histogram.maximum) if histogram.count else (0, 0.0, 0.0, 0.0)


@given(st.lists(SECONDS, max_size=3 * BUFFER))
def test_a_replay_agrees_with_the_report(values: list[float]) -> None:
    """Count, minimum and maximum to the letter, and the sum but for rounding."""
    series = Latency({})
    for value in values:
        series.record(value)
    assert snapshot(series) == nearly(values)
    assert figures(list(series.replay())) == nearly(values)
    assert list(series.replay()) == []
    assert snapshot(series) == nearly(values)


CLUSTERS = st.lists(st.tuples(st.sampled_from([2**-10, 2 ** (-9.5), 0.001, 0.00101, 1.0, 30.0]), st.integers(1, 300)), max_size=6)


@given(CLUSTERS)
def test_a_replay_agrees_for_values_at_the_edges_of_buckets(clusters: list[tuple[float, int]]) -> None:
    """Many equal values are the hardest, because all of them lie at the same place of their bucket."""
    values = [value for value, count in clusters for _ in range(count)]
    series = Latency({})
    for value in values:
        series.record(value)
    assert figures(list(series.replay())) == nearly(values)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(1, 200)), st.tuples(st.sampled_from(["read", "replay"]), st.integers(0, 300))
        )
    )
)
def test_steps_in_any_order(steps: list[tuple[str, int]]) -> None:
    """What the replays have told and what the report says are the same at each complete replay."""
    series, recorded, told = Latency({}), list[float](), list[float]()
    source = itertools.cycle([0.001, 0.5, 0.0, 7.25])
    for step, number in [*steps, ("replay", 10**6)]:
        if step == "record":
            for value in itertools.islice(source, number):
                series.record(value)
                recorded.append(value)
        elif step == "read":
            assert snapshot(series) == nearly(recorded)
        else:
            told.extend(itertools.islice(series.replay(), number))  # cut short, as by a time limit
            assert len(told) <= len(recorded)
    told.extend(series.replay())
    assert figures(told) == nearly(recorded)
    assert snapshot(series) == nearly(recorded)


def test_recording_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else folds, values gather in the buffer; none is lost."""
    series = Latency({})
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with series._lock:
            holds.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait()
    for _ in range(10 * BUFFER):
        series.record(0.5)
    assert len(series.pending) == 10 * BUFFER
    release.set()
    holder.join()
    series.record(0.5)
    assert series.pending == []
    assert snapshot(series) == (10 * BUFFER + 1, 0.5 * (10 * BUFFER + 1), 0.5, 0.5)


@pytest.mark.parametrize("step", ["observe", "merge"])
def test_whoever_comes_in_between_sees_all_or_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A finalizer may record, read and replay inside a fold or a replay."""
    series, told = Latency({}), list[float]()
    original: Callable[..., Any] = getattr(Histogram, step)
    inside: list[tuple[int, float, float, float]] = []
    armed = True

    def interrupted(histogram: Any, values: Any) -> None:
        nonlocal armed
        original(histogram, values)
        if armed:
            armed = False
            for _ in range(2 * BUFFER):
                series.record(0.25)
            inside.append(snapshot(series))
            told.extend(series.replay())

    for _ in range(10):
        series.record(0.5)
    series.snapshot()
    for _ in range(5):
        series.record(0.5)
    monkeypatch.setattr(Histogram, step, interrupted)
    told.extend(series.replay())
    monkeypatch.undo()
    assert inside[0] in {(10, 5.0, 0.5, 0.5), (15, 7.5, 0.5, 0.5)}
    told.extend(series.replay())
    expected = [0.5] * 15 + [0.25] * 2 * BUFFER
    assert figures(told) == figures(expected)
    assert snapshot(series) == figures(expected)


def test_an_interrupted_fold_loses_and_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of it; the next one takes the same values."""
    series = Latency({})

    def interrupted(histogram: Any, values: Any) -> None:
        histogram.count += 1
        raise KeyboardInterrupt

    for _ in range(BUFFER - 1):
        series.record(0.5)
    monkeypatch.setattr(Histogram, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        series.record(0.5)
    with pytest.raises(KeyboardInterrupt):
        list(series.replay())
    monkeypatch.undo()
    assert snapshot(series) == (BUFFER, BUFFER / 2, 0.5, 0.5)
    assert len(list(series.replay())) == BUFFER


def test_threads_lose_nothing() -> None:
    """Eight threads record while two others read and replay."""
    series, done, told = Latency({}), threading.Event(), list[float]()

    def record() -> None:
        for _ in range(20_000):
            series.record(0.125)

    def replay() -> None:
        while not done.is_set():
            told.extend(series.replay())

    def read() -> None:
        while not done.is_set():
            count, total, _, _ = snapshot(series)
            assert total == count * 0.125

    watchers = [threading.Thread(target=target) for target in (replay, read)]
    recorders = [threading.Thread(target=record) for _ in range(8)]
    for thread in (*watchers, *recorders):
        thread.start()
    for thread in recorders:
        thread.join()
    done.set()
    for thread in watchers:
        thread.join()
    told.extend(series.replay())
    assert figures(told) == snapshot(series) == (160_000, 20_000.0, 0.125, 0.125)


class SlowClock:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def monotonic(self) -> float:
        """Tell the time."""
        return next(self._seconds)

    def sleep(self, _: float) -> None:
        """Take no time."""


def test_a_long_replay_goes_on_at_the_next_collection(
    service: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection has a time limit, after which the SDK throws away what it has; half of it is for replays."""
    collected = service()
    monkeypatch.setattr(instruments, "time", SlowClock())
    for each in ("a", "b", "c"):
        for _ in range(1000):
            record_performance_metric(f"{name}-{each}", 0.5)
    counts: list[list[int]] = []
    for _ in range(12):
        data = collected.collect()
        counts.append([data.total(names.OPERATION_DURATION, f"{name}-{each}")[0] for each in ("a", "b", "c")])
    assert 0 < sum(counts[0]) < 1000
    assert all(
        later >= earlier for row, following in itertools.pairwise(counts) for earlier, later in zip(row, following, strict=True)
    )
    assert all(counts[2]), "a busy series starves the others"
    assert counts[-1] == [1000, 1000, 1000]
    assert collected.collect().total(names.OPERATION_DURATION, f"{name}-c") == (1000, 500.0)


def test_a_replay_yields_to_other_threads(service: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 64 values, other threads may run."""
    slept: list[float] = []
    clock = SlowClock()
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
    monkeypatch.setattr(clock, "sleep", slept.append)
    collected = service()
    monkeypatch.setattr(instruments, "time", clock)
    for _ in range(640):
        record_performance_metric(name, 0.5)
    collected.collect()
    assert slept[:-1] == [0] * 10  # the last one lets the new series be older than a millisecond
