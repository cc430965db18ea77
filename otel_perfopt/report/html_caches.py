"""What the HTML report says about caches."""

from collections.abc import Iterator, Mapping
from typing import Any

from otel_perfopt.report import charts
from otel_perfopt.report.html_parts import (
    Card,
    Column,
    Note,
    cards,
    chart,
    overview,
    percentile_columns,
    reasons_of,
    section,
    top,
)
from otel_perfopt.report.html_words import percent
from otel_perfopt.report.model import CacheRow
from otel_perfopt.report.words import counts_of, many, size

__all__ = ("caches", "notes")

REASONS = ("capacity", "weight", "expired")


def caches(rows: Mapping[str, CacheRow]) -> dict[str, Any]:
    """Return the section of caches, in the order of `rows`; the names are ready to be shown."""
    columns = (
        Column("hit rate", lambda row: row.hit_rate if row.hit_count + row.miss_count else None, percent),
        Column("hits", lambda row: row.hit_count),
        Column("misses", lambda row: row.miss_count),
        Column("entries", lambda row: row.size),
        Column("at most", lambda row: row.max_size),
        Column("memory", lambda row: row.memory_usage, size),
        Column("evicted", lambda row: sum(row.evictions.values())),
        Column("removed", lambda row: sum(row.invalidations.values())),
        Column("loads", lambda row: row.loads.count),
        *percentile_columns("load", lambda row: row.loads),
        Column("failed", lambda row: sum(row.load_errors.values())),
    )
    loads = {name: row.loads for name, row in rows.items() if row.loads.count}
    compared = overview("Loads, cache by cache", "Percentiles of the loads of each cache", loads)
    drawn = {name: Card.of(latency, _facts(rows[name])) for name, latency in loads.items()}
    shown = [cards("How long loads took", drawn, compared)]
    return section("Caches", "cache", "by requests", rows, columns, charts=_charts(rows), cards=shown)


def notes(rows: Mapping[str, CacheRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        failed = sum(row.load_errors.values())
        if failed:
            yield Note(failed, "bad", name, f"{many(failed, 'load')} failed: {counts_of(row.load_errors)}")
        pushed = row.evictions.get("capacity", 0) + row.evictions.get("weight", 0)
        if pushed * 100 > row.hit_count + row.miss_count:
            full = "" if row.max_size is None else f"; it holds {row.size:,} of at most {row.max_size:,}"
            yield Note(pushed, "warn", name, f"{many(pushed, 'entry', 'entries')} had to leave for lack of room{full}")
        if row.load_waiters:
            text = f"{many(row.load_waiters, 'caller')} for {many(row.loads_in_flight, 'load')} at this moment"
            yield Note(row.load_waiters, "warn", name, f"waiting: {text}")


def _charts(rows: Mapping[str, CacheRow]) -> Iterator[dict[str, Any]]:
    used = {name: row for name, row in top(rows).items() if row.hit_count + row.miss_count}
    if used:
        rates = {name: row.hit_rate for name, row in used.items()}
        yield chart("Hit rate", charts.bars("Hit rate of each cache", rates, show=percent, limit=1.0))
        requests = {name: {"hits": row.hit_count, "misses": row.miss_count} for name, row in used.items()}
        keys = ["hits", "misses"]
        yield chart("Requests", charts.stacked("Hits and misses of each cache", requests, keys), keys, "requests")
    evicted, reasons = reasons_of({name: row.evictions for name, row in rows.items()}, REASONS)
    if evicted:
        drawn = charts.stacked("Entries evicted from each cache, by reason", top(evicted), reasons)
        yield chart("Evicted, by reason", drawn, reasons)


def _facts(row: CacheRow) -> Iterator[tuple[str, str]]:
    for title, counts in (("evicted", row.evictions), ("removed", row.invalidations), ("failed", row.load_errors)):
        if any(counts.values()):
            yield title, counts_of(counts)
