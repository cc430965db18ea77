"""What the HTML report says about pools."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from otel_perfopt._core.cells import Histogram
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
from otel_perfopt.report.html_words import duration
from otel_perfopt.report.model import PoolRow
from otel_perfopt.report.words import counts_of, many

__all__ = ("notes", "pools")

REASONS = ("idle", "lifetime", "invalid", "reset", "requested", "lost", "drain", "resize", "close")


def pools(rows: Mapping[str, PoolRow]) -> dict[str, Any]:
    """Return the section of pools, in the order of `rows`; the names are ready to be shown."""
    columns = (
        Column("in use", lambda row: row.in_use if row.max_size else None),
        Column("at most", lambda row: row.max_size or None),
        Column("mean use", lambda row: row.mean_in_use if row.uses.count else None, _mean),
        Column("acquires", lambda row: row.acquires),
        Column("waited", lambda row: row.waited),
        *percentile_columns("wait", lambda row: row.waits),
        *percentile_columns("use", lambda row: row.uses, ("p50", "p95")),
        Column("created", lambda row: row.total_created),
        *percentile_columns("create", lambda row: row.creations, ("p50", "p95")),
        Column("destroyed", lambda row: sum(row.destroyed.values())),
        Column("timeouts", lambda row: row.timeouts),
        Column("rejected", lambda row: row.rejected),
        Column("leaks", lambda row: row.leaks),
    )
    waits = {name: _waits(row) for name, row in rows.items() if row.waited is None or row.waited}
    uses = {name: row.uses for name, row in rows.items() if row.uses.count}
    compared = overview("Uses, pool by pool", "Percentiles of the uses of each pool", uses)
    drawn = {name: Card.of(latency, _facts(rows[name])) for name, latency in uses.items()}
    shown = [cards("How long callers waited", waits), cards("How long resources were used", drawn, compared)]
    return section("Pools", "pool", "by acquires", rows, columns, charts=_charts(rows), cards=shown)


def notes(rows: Mapping[str, PoolRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        failed = sum(row.create_errors.values())
        if row.timeouts:
            yield Note(row.timeouts, "bad", name, f"{many(row.timeouts, 'caller')} timed out")
        if row.rejected:
            yield Note(row.rejected, "bad", name, f"{many(row.rejected, 'caller')} rejected because too many waited")
        if failed:
            yield Note(failed, "bad", name, f"{many(failed, 'creation')} failed: {counts_of(row.create_errors)}")
        if row.leaks:
            text = f"{many(row.leaks, 'resource')} held for suspiciously long, or dropped without being released"
            yield Note(row.leaks, "warn", name, text)
        if row.waiting:
            text = f"{many(row.waiting, 'caller')} at this moment; {row.in_use:,} of at most {row.max_size:,} in use"
            yield Note(row.waiting, "warn", name, f"waiting: {text}")


def _charts(rows: Mapping[str, PoolRow]) -> Iterator[dict[str, Any]]:
    means = {name: row.mean_in_use for name, row in rows.items() if row.uses.count}
    if means:
        yield chart("In use on average", charts.bars("Resources of each pool in use on average", top(means), show=_mean))
    acquires = {
        name: {"at once": max(0, row.acquires - row.waited), "waited": row.waited}
        for name, row in rows.items()
        if row.acquires and row.waited is not None
    }
    if acquires:
        keys = ["at once", "waited"]
        drawn = charts.stacked("Callers of each pool that were served at once, and that waited", top(acquires), keys)
        yield chart("Acquires", drawn, keys, "acquires")
    destroyed, reasons = reasons_of({name: row.destroyed for name, row in rows.items()}, REASONS)
    if destroyed:
        drawn = charts.stacked("Resources destroyed in each pool, by reason", top(destroyed), reasons)
        yield chart("Destroyed, by reason", drawn, reasons)


def _mean(count: float) -> str:
    return f"{count:.2g}"


def _waits(row: PoolRow) -> Card:
    """Return the card of those that waited; the percentiles are those of all callers."""
    if row.waited is None:
        return Card.of(row.waits)
    some = [pair for pair in row.waits.distribution if pair[0] > Histogram.TINY]
    extent = f"{row.waited:,} of {many(row.waits.count, 'caller')} waited, {duration(row.waits.max)} at most"
    return Card(replace(row.waits, distribution=some), extent)


def _facts(row: PoolRow) -> Iterator[tuple[str, str]]:
    if row.creations.count:
        times = f"{duration(row.creations.p50)} (p50), {duration(row.creations.max)} at most"
        yield "created", f"{row.creations.count:,} in {times}"
    for title, counts in (("destroyed", row.destroyed), ("failed", row.create_errors)):
        if any(counts.values()):
            yield title, counts_of(counts)
