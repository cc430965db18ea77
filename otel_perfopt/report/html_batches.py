"""What the HTML report says about batch processors."""

from collections.abc import Iterator, Mapping
from typing import Any

from otel_perfopt.report import charts
from otel_perfopt.report.html_parts import Card, Column, Note, cards, chart, percentile_columns, reasons_of, section, top
from otel_perfopt.report.html_words import percent
from otel_perfopt.report.model import BatchRow
from otel_perfopt.report.words import counts_of, many, number

__all__ = ("batches", "items_of", "notes")

REASONS = ("size", "weight", "timeout", "manual", "close")


def batches(rows: Mapping[str, BatchRow]) -> dict[str, Any]:
    """Return the section of batch processors, in the order of `rows`; the names are ready to be shown."""
    columns = (
        Column("items", items_of),
        Column("failed", lambda row: sum(row.item_errors.values())),
        Column("batches", lambda row: sum(row.flushes.values())),
        Column("mean size", lambda row: row.mean_size if row.max_size else None),
        Column("largest", lambda row: row.max_size or None),
        Column("queued", lambda row: row.queue_size),
        Column("at most", lambda row: row.max_queue),
        *percentile_columns("wait", lambda row: row.waits, ("p95",)),
        *percentile_columns("time", lambda row: row.durations),
    )
    drawn = {name: Card.of(row.durations, _facts(row)) for name, row in rows.items() if row.durations.count}
    shown = [cards("How long batches took", drawn)]
    return section("Batches", "batch processor", "by items", rows, columns, charts=_charts(rows), cards=shown)


def notes(rows: Mapping[str, BatchRow]) -> Iterator[Note]:
    """Yield what is worth a look."""
    for name, row in rows.items():
        failed = sum(row.item_errors.values())
        if failed:
            text = f"{failed:,} of {many(items_of(row), 'item')} failed: {counts_of(row.item_errors)}"
            yield Note(failed, "bad", name, text)
        if row.max_queue is not None and row.queue_size >= row.max_queue:
            yield Note(row.queue_size, "warn", name, f"the queue is full: {many(row.queue_size, 'item')}")


def _charts(rows: Mapping[str, BatchRow]) -> Iterator[dict[str, Any]]:
    flushes, reasons = reasons_of({name: row.flushes for name, row in rows.items()}, REASONS)
    if flushes:
        drawn = charts.stacked("Batches of each processor, by reason", top(flushes), reasons)
        yield chart("Batches, by reason", drawn, reasons)
    sizes = {name: row.mean_size for name, row in rows.items() if row.max_size}
    if sizes:
        yield chart("Mean size", charts.bars("Mean size of the batches of each processor", top(sizes), show=number))
    times = {name: row.durations for name, row in rows.items() if row.durations.count}
    if times:
        drawn = charts.percentiles("Percentiles of the batches of each processor", top(times))
        yield chart("Time of a batch", drawn, charts.PERCENTILES, "times")
    failed = {name: sum(row.item_errors.values()) / items_of(row) for name, row in rows.items() if any(row.item_errors.values())}
    if failed:
        drawn = charts.bars("Failed items of each processor", top(failed), show=percent)
        yield chart("Failed items", drawn, palette="failures")


def _facts(row: BatchRow) -> Iterator[tuple[str, str]]:
    for title, counts in (("flushes", row.flushes), ("failed", row.batch_errors)):
        if any(counts.values()):
            yield title, counts_of(counts)


def items_of(row: BatchRow) -> int:
    """Return how many items a processor is done with."""
    return row.item_count + sum(row.item_errors.values())
