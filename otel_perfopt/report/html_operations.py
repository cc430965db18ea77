"""What the HTML report says about measured operations."""

from collections.abc import Iterator, Mapping
from typing import Any

from otel_perfopt.report import charts
from otel_perfopt.report.html_parts import Card, Column, Note, cards, chart, section, top
from otel_perfopt.report.html_words import duration, percent, signed_size
from otel_perfopt.report.model import LatencySummary, OperationRow
from otel_perfopt.report.words import counts_of, many

__all__ = ("notes", "operations")


def operations(rows: Mapping[str, OperationRow]) -> dict[str, Any]:
    """Return the section of operations, in the order of `rows`; the names are ready to be shown."""
    tracked = any(row.memory_deltas for row in rows.values())
    memory = (Column("mean memory", lambda row: row.avg_memory_delta if row.memory_deltas else None, signed_size),)
    columns = (
        Column("calls", lambda row: row.count),
        Column("failed", lambda row: row.error_count),
        Column("total", lambda row: row.total_duration, duration),
        Column("mean", lambda row: row.avg_duration, duration),
        Column("min", lambda row: row.min_duration, duration),
        Column("p50", lambda row: row.p50_duration, duration),
        Column("p95", lambda row: row.p95_duration, duration),
        Column("p99", lambda row: row.p99_duration, duration),
        Column("max", lambda row: row.max_duration, duration),
        *(memory if tracked else ()),
    )
    shown = [cards("How long calls took", {name: Card.of(_latency(row), _facts(row)) for name, row in rows.items()})]
    return section("Operations", "operation", "by total time", rows, columns, charts=_charts(rows), cards=shown)


def notes(rows: Mapping[str, OperationRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        if row.error_count:
            text = f"failed {row.error_count:,} of {many(row.count, 'time')}: {counts_of(row.errors)}"
            yield Note(row.error_count, "bad", name, text)


def _charts(rows: Mapping[str, OperationRow]) -> Iterator[dict[str, Any]]:
    if not rows:
        return
    totals = {name: row.total_duration for name, row in top(rows).items()}
    yield chart("Total time", charts.bars("Total time of each operation", totals, show=duration))
    latencies = {name: _latency(row) for name, row in top(rows).items()}
    drawn = charts.percentiles("Percentiles of each operation", latencies)
    yield chart("Time of a call", drawn, charts.PERCENTILES, "times")
    failing = [(row.error_count / max(row.count, row.error_count), name) for name, row in rows.items() if row.error_count]
    if failing:
        rates = top({name: rate for rate, name in sorted(failing, key=lambda item: (-item[0], item[1]))})
        yield chart("Failed calls", charts.bars("Failed calls of each operation", rates, show=percent), palette="failures")


def _facts(row: OperationRow) -> Iterator[tuple[str, str]]:
    if row.errors:
        yield "failed", counts_of(row.errors)
    if row.memory_deltas:
        yield "memory", f"{signed_size(row.avg_memory_delta)} a call, the last {len(row.memory_deltas)} on average"


def _latency(row: OperationRow) -> LatencySummary:
    """Return the durations of an operation in the form that those of loads have."""
    times = (row.min_duration, row.max_duration, row.p50_duration, row.p95_duration, row.p99_duration)
    return LatencySummary(row.count, row.total_duration, *times, row.distribution)
