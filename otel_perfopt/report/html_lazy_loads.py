"""What the HTML report says about lazy loads."""

from collections.abc import Iterator, Mapping
from typing import Any

from otel_perfopt.report import charts
from otel_perfopt.report.html_parts import Card, Column, Note, cards, chart, percentile_columns, section, top
from otel_perfopt.report.html_words import duration
from otel_perfopt.report.model import LazyRow
from otel_perfopt.report.words import counts_of, many

__all__ = ("lazy_loads", "notes")


def lazy_loads(rows: Mapping[str, LazyRow]) -> dict[str, Any]:
    """Return the section of lazy loads, in the order of `rows`; the names are ready to be shown."""
    columns = (
        Column("loads", lambda row: row.loads.count),
        Column("failed", lambda row: sum(row.load_errors.values())),
        Column("total", lambda row: row.loads.total, duration),
        *percentile_columns("load", lambda row: row.loads),
        Column("max", lambda row: row.loads.max if row.loads.count else None, duration),
    )
    drawn = {name: Card.of(row.loads) for name, row in rows.items() if row.loads.count > 1}
    shown = [cards("How long loads took", drawn)]
    return section("Lazy loads", "lazy load", "by total time", rows, columns, charts=_charts(rows), cards=shown)


def notes(rows: Mapping[str, LazyRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        failed = sum(row.load_errors.values())
        if failed:
            yield Note(failed, "bad", name, f"{many(failed, 'lazy load')} failed: {counts_of(row.load_errors)}")


def _charts(rows: Mapping[str, LazyRow]) -> Iterator[dict[str, Any]]:
    totals = {name: row.loads.total for name, row in rows.items() if row.loads.count}
    if totals:
        yield chart("Total time", charts.bars("Total time of each lazy load", top(totals), show=duration))
