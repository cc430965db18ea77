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
from otel_perfopt.report.words import counts_of, many, printable, size, troubles_of
from otel_perfopt.telemetry.names import MEMORY_TIER

__all__ = ("caches", "notes")

REASONS = ("capacity", "weight", "expired")


def caches(rows: Mapping[str, CacheRow]) -> dict[str, Any]:
    """Return the section of caches, in the order of `rows`; the names are ready to be shown."""
    columns = (
        Column("hit rate", lambda row: row.hit_rate if row.request_count else None, percent),
        Column("hits", lambda row: row.hit_count),
        *(_column_of(tier) for tier in _tiers_behind(rows)),
        *_used(rows, Column("stale", lambda row: row.stale_count)),
        Column("misses", lambda row: row.miss_count),
        Column("entries", lambda row: row.size),
        Column("at most", lambda row: row.max_size),
        Column("memory", lambda row: row.memory_usage, size),
        Column("evicted", lambda row: sum(row.evictions.values())),
        Column("removed", lambda row: sum(row.invalidations.values())),
        Column("loads", lambda row: row.loads.count),
        *_used(rows, Column("refreshes", lambda row: row.refreshes)),
        *percentile_columns("load", lambda row: row.loads),
        Column("failed", lambda row: sum(row.load_errors.values())),
        *_used(rows, Column("tier errors", lambda row: sum(sum(kinds.values()) for kinds in row.tier_errors.values()))),
    )
    loads = {name: row.loads for name, row in rows.items() if row.loads.count}
    compared = overview("Loads, cache by cache", "Percentiles of the loads of each cache", loads)
    drawn = {name: Card.of(latency, _facts(rows[name])) for name, latency in loads.items()}
    shown = [cards("How long loads took", drawn, compared)]
    hot = [{"title": "Hot keys", "of": _hot_keys(rows)}]
    return section("Caches", "cache", "by requests", rows, columns, charts=_charts(rows), cards=shown, lists=hot)


def notes(rows: Mapping[str, CacheRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        failed = sum(row.load_errors.values())
        if failed:
            yield Note(failed, "bad", name, f"{many(failed, 'load')} failed: {counts_of(row.load_errors)}")
        for tier, trouble in troubles_of(row.tier_errors, row.open_breakers).items():
            weight = sum(row.tier_errors.get(tier, {}).values())
            yield Note(weight, "bad" if tier in row.open_breakers else "warn", name, trouble)
        pushed = row.evictions.get("capacity", 0) + row.evictions.get("weight", 0)
        if pushed * 100 > row.request_count:
            full = "" if row.max_size is None else f"; it holds {row.size:,} of at most {row.max_size:,}"
            yield Note(pushed, "warn", name, f"{many(pushed, 'entry', 'entries')} had to leave for lack of room{full}")
        if row.load_waiters:
            text = f"{many(row.load_waiters, 'caller')} for {many(row.loads_in_flight, 'load')} at this moment"
            yield Note(row.load_waiters, "warn", name, f"waiting: {text}")


def _charts(rows: Mapping[str, CacheRow]) -> Iterator[dict[str, Any]]:
    used = {name: row for name, row in top(rows).items() if row.request_count}
    if used:
        rates = {name: row.hit_rate for name, row in used.items()}
        yield chart("Hit rate", charts.bars("Hit rate of each cache", rates, show=percent, limit=1.0))
        requests, keys = _requests(used)
        yield chart("Requests", charts.stacked("Requests of each cache, by what they got", requests, keys), keys, "requests")
    evicted, reasons = reasons_of({name: row.evictions for name, row in rows.items()}, REASONS)
    if evicted:
        drawn = charts.stacked("Entries evicted from each cache, by reason", top(evicted), reasons)
        yield chart("Evicted, by reason", drawn, reasons)


def _requests(rows: Mapping[str, CacheRow]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return how many requests got what, and what there is to get: misses last, and nothing that these caches do not know."""
    tiers = {tier: f"hits from {printable(tier)}" for tier in _tiers_behind(rows)}
    memory = "hits from memory" if tiers else "hits"
    requests = {
        name: {
            memory: max(0, row.hit_count - sum(row.hits_behind.values())),
            **{title: row.hits_behind.get(tier, 0) for tier, title in tiers.items()},
            "stale answers": row.stale_count,
            "misses": row.miss_count,
        }
        for name, row in rows.items()
    }
    stale = ["stale answers"] if any(row.stale_count for row in rows.values()) else []
    return requests, [memory, *tiers.values(), *stale, "misses"]


def _tiers_behind(rows: Mapping[str, CacheRow]) -> list[str]:
    return sorted({tier for row in rows.values() for tier in row.hits_by_tier if tier != MEMORY_TIER})


def _column_of(tier: str) -> Column:
    """Return the column of the hits of a tier, with nothing for the caches that do not have it."""
    return Column(f"from {printable(tier)}", lambda row: row.hits_by_tier.get(tier))


def _used(rows: Mapping[str, CacheRow], column: Column) -> list[Column]:
    """Return a column that is only for those who need it, if there is a figure in it."""
    return [column] if any(column.value(row) for row in rows.values()) else []


def _hot_keys(rows: Mapping[str, CacheRow]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the hot keys of each of the first caches that have any, with their shares."""
    hot = top({name: row.hot_keys for name, row in rows.items() if row.hot_keys})
    return [(name, [(percent(each.share), printable(each.key)) for each in keys]) for name, keys in hot.items()]


def _facts(row: CacheRow) -> Iterator[tuple[str, str]]:
    if row.hits_behind:
        yield "hits", counts_of(row.hits_by_tier)
    yield from (("tier", trouble) for trouble in troubles_of(row.tier_errors, row.open_breakers).values())
    for title, counts in (("evicted", row.evictions), ("removed", row.invalidations), ("failed", row.load_errors)):
        if any(counts.values()):
            yield title, counts_of(counts)
