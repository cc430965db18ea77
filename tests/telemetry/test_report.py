"""The report: the keys of the specification, exact figures, and forms that anybody can read."""

import dataclasses
import inspect
import json
import math
import random
import re
from typing import Any

import pytest

from otel_perfopt import Cache, get_performance_report, record_performance_metric
from otel_perfopt.report import CacheRow, LatencySummary, OperationRow, PerformanceReport, Summary
from otel_perfopt.report.build import build_report
from otel_perfopt.telemetry.reader import read_metrics

SPECIFIED = {
    PerformanceReport: {"summary", "operations", "caches", "pools", "batches"},
    Summary: {"total_operations", "total_duration", "cache_hit_rate", "pool_utilization", "batch_queue_sizes"},
    OperationRow: {
        "count", "total_duration", "min_duration", "max_duration", "avg_duration", "success_count", "error_count",
        "memory_deltas", "success_rate", "avg_memory_delta",
    },
    CacheRow: {"name", "size", "max_size", "hit_count", "miss_count", "hit_rate", "memory_usage"},
    LatencySummary: {"count", "total", "min", "max", "p50", "p95", "p99"},
}  # fmt: skip


def documented(kind: type) -> list[str]:
    """The attributes that a class's docstring lists."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return re.findall(r"^ {4}(\w+): \S", listed, re.MULTILINE)


def use(name: str) -> Cache:
    """A cache and an operation with something of everything."""
    cache = Cache(name, max_size=3)
    for key in (1, 1, 2, 3, 4, 5):
        cache.get(key, lambda: "value")
    with pytest.raises(ZeroDivisionError):
        cache.get(0, lambda: 1 / 0)
    cache.delete(5)
    record_performance_metric(name, 0.5, memory_delta=3)
    record_performance_metric(name, 1.5, success=False, error_type="Refused")
    return cache


@pytest.mark.parametrize("kind", SPECIFIED, ids=lambda kind: kind.__name__)
def test_every_key_is_documented(kind: type) -> None:
    """Each field, in the order of the class; those of the specification are there."""
    fields = [field.name for field in dataclasses.fields(kind)]
    assert documented(kind) == fields
    assert set(fields) >= SPECIFIED[kind]


def test_to_dict_has_these_keys(name: str) -> None:
    """At every level: those of the specification, and those that the classes document beside them."""
    alive = use(name)
    told = get_performance_report().to_dict()
    levels = {
        PerformanceReport: told,
        Summary: told["summary"],
        OperationRow: told["operations"][name],
        CacheRow: told["caches"][name],
        LatencySummary: told["caches"][name]["loads"],
    }
    for kind, keys in levels.items():
        assert type(keys) is dict
        assert list(keys) == documented(kind)
    del alive


def test_figures_of_a_cache(name: str) -> None:
    """The same as those of its own statistics."""
    cache = use(name)
    told, stats = get_performance_report().caches[name], cache.stats()
    for figure in (
        "name",
        "size",
        "max_size",
        "hit_count",
        "miss_count",
        "hit_rate",
        "memory_usage",
        "loads_in_flight",
        "load_waiters",
    ):
        assert getattr(told, figure) == getattr(stats, figure)
    assert (told.hit_count, told.miss_count, told.hit_rate) == (1, 6, 1 / 7)
    assert told.evictions == {"capacity": 2, "weight": 0, "expired": 0}
    assert told.invalidations == {"delete": 1, "expire": 0, "clear": 0}
    assert (told.loads.count, told.load_errors) == (5, {"ZeroDivisionError": 1})
    assert 0 < told.loads.min <= told.loads.p50 <= told.loads.p95 <= told.loads.p99 <= told.loads.max <= told.loads.total


def test_figures_of_an_operation(name: str) -> None:
    """Successes and failures together, apart from their counts."""
    alive = use(name)
    told = get_performance_report().operations[name]
    assert (told.count, told.total_duration, told.min_duration, told.max_duration, told.avg_duration) == (2, 2.0, 0.5, 1.5, 1.0)
    assert (told.success_count, told.error_count, told.success_rate, told.errors) == (1, 1, 0.5, {"Refused": 1})
    assert (told.memory_deltas, told.avg_memory_delta) == ([3], 3.0)
    del alive


def test_the_summary_adds_up() -> None:
    """All operations, and hits per request over all caches."""
    report = get_performance_report()
    requests = sum(row.hit_count + row.miss_count for row in report.caches.values())
    assert report.summary.total_operations == sum(row.count for row in report.operations.values())
    assert report.summary.total_duration == pytest.approx(math.fsum(row.total_duration for row in report.operations.values()))
    hits = sum(row.hit_count for row in report.caches.values())
    assert report.summary.cache_hit_rate == (hits / requests if requests else 0.0)
    assert (report.pools, report.batches, report.summary.pool_utilization, report.summary.batch_queue_sizes) == ({}, {}, {}, {})


@pytest.mark.parametrize("shape", ["uniform", "lognormal", "constant", "wide"])
def test_percentiles(name: str, shape: str) -> None:
    """Within one per cent of the exact ones."""
    numbers = random.Random(7)
    draw = {
        "uniform": lambda: numbers.uniform(0.001, 2),
        "lognormal": lambda: numbers.lognormvariate(-5, 1.5),
        "constant": lambda: 0.042,
        "wide": lambda: 10 ** numbers.uniform(-7, 3),
    }[shape]
    values = sorted(draw() for _ in range(5000))  # type: ignore[no-untyped-call]
    for value in values:
        record_performance_metric(name, value)
    told = get_performance_report().operations[name]
    for fraction, percentile in ((0.5, told.p50_duration), (0.95, told.p95_duration), (0.99, told.p99_duration)):
        assert percentile == pytest.approx(values[math.ceil(fraction * len(values)) - 1], rel=0.01)
    assert (told.min_duration, told.max_duration) == (values[0], values[-1])
    assert told.total_duration == pytest.approx(math.fsum(values), rel=1e-12)


ODD = [
    "[red]x[/red]",
    "naïve café ☕",
    "tab\tand\nnewline",
    "\x00\x1b[31m",
    "file-\udcff\ud83d",
    '"quoted\\"',
    "</script>",
    "\N{GOTHIC LETTER AHSA}" * 300,
    "-",
]


@pytest.mark.parametrize("odd", ODD)
def test_json(name: str, odd: str) -> None:
    """Comes back as it was, whatever the names are; there is nothing in it that JSON does not know."""
    cache = Cache(name + odd)
    cache.get(1, lambda: 1)
    record_performance_metric(name + odd, 1e-9, success=False, error_type=odd)
    record_performance_metric(name + odd, 1e9, memory_delta=-1e300)
    report = get_performance_report()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for text in (report.to_json(), report.to_json(indent=None)):
        text.encode()
        assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert "\n" not in report.to_json(indent=None)
    assert sum(key.startswith(name) for key in report.operations) == sum(key.startswith(name) for key in report.caches) == 1


def test_json_of_an_unlimited_cache(name: str) -> None:
    """No limit is null, and a huge one is a number."""
    caches = [Cache(name, max_size=None), Cache(f"{name}-huge", max_size=10**30)]
    told = json.loads(get_performance_report().to_json())["caches"]
    assert told[name]["max_size"] is None
    assert told[f"{name}-huge"]["max_size"] == 10**30
    assert [cache.stats().max_size for cache in caches] == [None, 10**30]


def test_a_report_does_not_change(name: str) -> None:
    """It says what was true when it was made; a dict made of it is the reader's own."""
    alive = use(name)
    report = get_performance_report()
    first = report.to_dict()
    record_performance_metric(name, 5.0)
    alive.get(1)
    assert report.to_dict() == first
    first["operations"][name]["memory_deltas"].append(99)
    assert report.operations[name].memory_deltas == [3]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.summary = Summary()  # type: ignore[misc]


def test_components_are_sorted(name: str) -> None:
    """By name, in every form."""
    caches = [Cache(f"{name}-{letter}") for letter in "cab"]
    for letter in "zxy":
        record_performance_metric(f"{name}-{letter}", 1)
    report = get_performance_report()
    assert list(report.caches) == sorted(report.caches)
    assert list(report.operations) == sorted(report.operations)
    assert len(caches) == 3


def test_an_empty_report(script: Any) -> None:
    """All keys, all zero, and a sentence."""
    code = """
import json, otel_perfopt
report = otel_perfopt.get_performance_report()
print(json.dumps([report.to_dict(), json.loads(report.to_json()), str(report)]))"""
    told, parsed, text = script(code)
    assert told == parsed
    assert told["summary"] == {
        "total_operations": 0, "total_duration": 0, "cache_hit_rate": 0, "pool_utilization": {}, "batch_queue_sizes": {},
    }  # fmt: skip
    assert (told["operations"], told["caches"]) == ({}, {})
    assert text == "Performance report: nothing was cached or measured yet.\n"


def test_a_report_of_collected_data(name: str) -> None:
    """It can be made of metric data alone."""
    alive = use(name)
    row = build_report(read_metrics(), {name: [1.0, 2.0]}).operations[name]
    assert (row.count, row.memory_deltas, row.avg_memory_delta) == (2, [1.0, 2.0], 1.5)
    del alive
