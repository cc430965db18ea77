"""The sections of the HTML report: for caches and for operations a table with all figures, charts, and distributions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from otel_perfopt.report import charts
from otel_perfopt.report.charts import duration
from otel_perfopt.report.html_words import counts, many, percent, signed_size
from otel_perfopt.report.model import CacheRow, LatencySummary, OperationRow
from otel_perfopt.report.text import number, printable, size

__all__ = ("caches", "operations")

T = TypeVar("T")

SHOWN = 15  # rows of a table before "more"
BARS = 12  # names in a chart
CARDS = 6  # cells of the grid of those with a chart of their own, and as many that open on request
TALL, TALL_BARS = 6, 18  # with more names than this a chart takes two cells, and has room for so many
REASONS = ("capacity", "weight", "expired")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, the value of a row, and the value as text."""

    title: str
    value: Callable[[Any], float | None]
    show: Callable[[Any], str] = number

    def cell(self, row: Any) -> dict[str, Any]:
        """Return the text and the value of a cell, the text a dash where there is none."""
        value = self.value(row)
        return {"value": value, "text": "-" if value is None else self.show(value)}


def caches(rows: Mapping[str, CacheRow]) -> dict[str, Any]:
    """Return what the page says about caches, in the order of `rows`; the names are ready to be shown."""
    loads = {name: row.loads for name, row in rows.items() if row.loads.count}
    evicting = {name: row.evictions for name, row in rows.items() if any(row.evictions.values())}
    evicting = {name: {printable(reason): count for reason, count in parts.items()} for name, parts in evicting.items()}
    found = {reason for parts in evicting.values() for reason, count in parts.items() if count}
    reasons = [reason for reason in REASONS if reason in found] + sorted(found.difference(REASONS))
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
        Column("load p50", lambda row: row.loads.p50 if row.loads.count else None, duration),
        Column("load p95", lambda row: row.loads.p95 if row.loads.count else None, duration),
        Column("load p99", lambda row: row.loads.p99 if row.loads.count else None, duration),
        Column("failed", lambda row: sum(row.load_errors.values())),
    )
    overview = []
    if len(loads) > 1:
        drawn = charts.percentiles("Percentiles of the loads of each cache", _top(loads, TALL_BARS))
        palette = "times tall" if len(loads) > TALL else "times"
        overview.append(_chart("Loads, cache by cache", drawn, charts.PERCENTILES, palette))
    facts = {name: (row, _cache_facts(rows[name])) for name, row in loads.items()}
    return _section("caches", "Caches", "by requests", rows, columns) | {
        "charts": list(_cache_charts(_top(rows), _top(evicting), reasons)),
        "cards": _cards("How long loads took", facts, overview),
    }


def _cache_charts(
    rows: Mapping[str, CacheRow], evicting: Mapping[str, Mapping[str, int]], reasons: list[str]
) -> Iterator[dict[str, Any]]:
    rows = {name: row for name, row in rows.items() if row.hit_count + row.miss_count}
    if rows:
        rates = {name: row.hit_rate for name, row in rows.items()}
        yield _chart("Hit rate", charts.bars("Hit rate of each cache", rates, show=percent, limit=1.0))
        requests = {name: {"hits": row.hit_count, "misses": row.miss_count} for name, row in rows.items()}
        keys = ["hits", "misses"]
        yield _chart("Requests", charts.stacked("Hits and misses of each cache", requests, keys), keys, "requests")
    if evicting:
        drawn = charts.stacked("Entries evicted from each cache, by reason", evicting, reasons)
        yield _chart("Evicted, by reason", drawn, reasons, "reasons")


def _cache_facts(row: CacheRow) -> list[tuple[str, str]]:
    facts = [("evicted", row.evictions), ("removed", row.invalidations), ("failed", row.load_errors)]
    return [(title, counts(by_kind)) for title, by_kind in facts if any(by_kind.values())]


def operations(rows: Mapping[str, OperationRow]) -> dict[str, Any]:
    """Return what the page says about operations, in the order of `rows`; the names are ready to be shown."""
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
    facts = {name: (_latency(row), _operation_facts(row)) for name, row in rows.items()}
    return _section("operations", "Operations", "by total time", rows, columns) | {
        "charts": list(_operation_charts(rows)),
        "cards": _cards("How long calls took", facts),
    }


def _operation_charts(rows: Mapping[str, OperationRow]) -> Iterator[dict[str, Any]]:
    if not rows:
        return
    totals = {name: row.total_duration for name, row in _top(rows).items()}
    yield _chart("Total time", charts.bars("Total time of each operation", totals, show=duration))
    latencies = {name: _latency(row) for name, row in _top(rows).items()}
    drawn = charts.percentiles("Percentiles of each operation", latencies)
    yield _chart("Time of a call", drawn, charts.PERCENTILES, "times")
    failing = [(row.error_count / max(row.count, row.error_count), name) for name, row in rows.items() if row.error_count]
    if failing:
        rates = _top({name: rate for rate, name in sorted(failing, key=lambda item: (-item[0], item[1]))})
        yield _chart("Failed calls", charts.bars("Failed calls of each operation", rates, show=percent), palette="failures")


def _operation_facts(row: OperationRow) -> list[tuple[str, str]]:
    facts = [("failed", counts(row.errors))] if row.errors else []
    if row.memory_deltas:
        facts.append(("memory", f"{signed_size(row.avg_memory_delta)} a call, the last {len(row.memory_deltas)} on average"))
    return facts


def _latency(row: OperationRow) -> LatencySummary:
    """Return the durations of an operation in the form that those of loads have."""
    times = (row.min_duration, row.max_duration, row.p50_duration, row.p95_duration, row.p99_duration)
    return LatencySummary(row.count, row.total_duration, *times, row.distribution)


def _section(key: str, title: str, order: str, rows: Mapping[str, Any], columns: Iterable[Column]) -> dict[str, Any]:
    columns = tuple(columns)
    table = {
        "head": [column.title for column in columns],
        "rows": [(name, [column.cell(row) for column in columns]) for name, row in rows.items()],
        "shown": SHOWN,
    }
    return {"key": key, "title": title, "order": order, "count": len(rows), "bars": BARS, "table": table}


def _chart(title: str, svg: str, legend: Iterable[str] = (), palette: str = "accent") -> dict[str, Any]:
    return {"title": title, "svg": svg, "legend": list(legend), "palette": palette}


def _cards(
    title: str, rows: Mapping[str, tuple[LatencySummary, list[tuple[str, str]]]], overview: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return the components that have durations: those to show, those to show on request, and how many are left out.

    Args:
        title: what they have in common.
        rows: durations and facts by name.
        overview: a chart to show before them, if any.
    """
    usable = {name: value for name, value in rows.items() if any(count for _, count in value[0].distribution)}
    cards = [_card(name, *value) for name, value in list(usable.items())[: 2 * CARDS]]
    shown = CARDS + 1 if len(rows) > TALL and overview else CARDS - len(overview)
    return {
        "title": title,
        "overview": overview,
        "shown": cards[:shown],
        "more": cards[shown:],
        "left_out": len(usable) - len(cards),
    }


def _card(name: str, row: LatencySummary, facts: list[tuple[str, str]]) -> dict[str, Any]:
    times = [(percentile, duration(getattr(row, percentile))) for percentile in charts.PERCENTILES]
    chart = charts.distribution(f"Distribution of the durations of {name}", row)
    extent = f"{many(row.count, 'time')}, {duration(row.min)} to {duration(row.max)}"
    return _chart(name, chart, palette="times") | {"extent": extent, "times": times, "facts": facts}


def _top(rows: Mapping[str, T], count: int = BARS) -> dict[str, T]:
    return dict(list(rows.items())[:count])
