"""The report as text: tables that read well in 80 columns."""

from collections.abc import Iterable, Iterator
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_perfopt.report.model import BatchRow, CacheRow, HotKeyRow, LazyRow, OperationRow, PerformanceReport, PoolRow
from otel_perfopt.report.words import counts_of, duration, folded, many, number, printable, size, troubles_of

__all__ = ("render",)

MIN_WIDTH = 40
NAME_WIDTH = 20  # a table leaves out columns rather than fold the names more than this


def render(report: PerformanceReport, *, width: int, color: bool) -> str:
    """Return `report` as tables of `width` columns."""
    if width < MIN_WIDTH:
        raise ValueError(f"width={width} is too narrow for a table; use {MIN_WIDTH} or more")
    file = StringIO()
    console = Console(
        file=file, width=width, height=1000, force_terminal=color, force_jupyter=False, legacy_windows=False, highlight=False,
        color_system="standard" if color else None, no_color=not color,
    )  # fmt: skip
    for part in _parts(report, width):
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _parts(report: PerformanceReport, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(_headline(report, width))]
    if report.caches:
        parts += ["", _caches(report.caches, width)]
        parts += _listed(note for cache in report.caches.values() for note in _notes(cache, width))
    if report.pools:
        parts += ["", _pools(report.pools, width)]
        parts += _listed(note for pool in report.pools.values() for note in _pool_notes(pool))
    if report.batches:
        parts += ["", _batches(report.batches, width)]
        parts += _listed(note for batch in report.batches.values() for note in _batch_notes(batch))
    if report.lazy_loads:
        parts += ["", _lazy_loads(report.lazy_loads, width)]
        parts += _listed(_failures("loads failed", {name: row.load_errors for name, row in report.lazy_loads.items()}))
    if report.operations:
        parts += ["", _operations(report.operations, width)]
        parts += _listed(_failures("failed", {name: row.errors for name, row in report.operations.items()}))
    return parts


def _listed(notes: Iterable[str]) -> list[RenderableType]:
    """Return a blank line and the notes, or nothing at all."""
    parts: list[RenderableType] = [Text(note) for note in notes]
    return ["", *parts] if parts else []


def _failures(what: str, errors: dict[str, dict[str, int]]) -> Iterator[str]:
    return (f"{printable(name)}: {what} with {counts_of(kinds)}" for name, kinds in errors.items() if any(kinds.values()))


def _headline(report: PerformanceReport, width: int) -> str:
    said = list(_said(report))
    if not said:
        return "Performance report: nothing was cached or measured yet."
    line = f"Performance report: {'; '.join(said)}."
    return line if len(line) <= width else "\n".join(["Performance report:", *(f"  {part}" for part in said)])


def _said(report: PerformanceReport) -> Iterator[str]:
    """Yield the report in a few words; of lazy loads, whose table is as short, only if there is nothing else."""
    summary = report.summary
    if report.caches:
        yield f"{summary.cache_hit_rate:.1%} of cache requests were hits"
    if report.pools:
        acquires = sum(pool.acquires for pool in report.pools.values())
        yield f"{many(acquires, 'acquire')} from {many(len(report.pools), 'pool')}"
    if report.batches:
        items = sum(map(_items, report.batches.values()))
        flushes = sum(sum(batch.flushes.values()) for batch in report.batches.values())
        yield f"{many(items, 'item')} in {many(flushes, 'batch', 'batches')}"
    if report.operations:
        yield f"{many(summary.total_operations, 'operation')} took {duration(summary.total_duration)}"
    elif report.lazy_loads and not (report.caches or report.pools or report.batches):
        loads = [row.loads for row in report.lazy_loads.values()]
        yield f"{many(sum(each.count for each in loads), 'lazy load')} took {duration(sum(each.total for each in loads))}"


def _table(width: int, head: list[str], rows: list[list[str]], *, keep: int) -> Table:
    """Return a table as wide as it must be; of its columns after the first, only `keep` are sure to be there.

    Args:
        width: columns of the terminal.
        head: the titles; the first is that of the names, the last ones are those to leave out first.
        rows: the cells.
        keep: how many columns of figures matter more than room for the names.
    """
    widths = [max(cell_len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    while len(widths) > keep + 1 and _room(width, widths) < min(widths[0], NAME_WIDTH):
        widths.pop()
    room = max(8, _room(width, widths))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(head[0], overflow="fold")
    for title in head[1 : len(widths)]:
        table.add_column(title, justify="right", no_wrap=True)
    for name, *figures in rows:
        table.add_row(Text(folded(name, room)), *figures[: len(widths) - 1])
    return table


def _room(width: int, widths: list[int]) -> int:
    """Return the columns that are left for the names; two go between each two columns."""
    return width - sum(widths[1:]) - 2 * (len(widths) - 1)


def _caches(caches: dict[str, CacheRow], width: int) -> Table:
    rows = [
        [
            printable(name),
            f"{cache.hit_rate:.1%}",
            number(cache.hit_count),
            number(cache.miss_count),
            number(cache.size) + ("" if cache.max_size is None else f"/{number(cache.max_size)}"),
            size(cache.memory_usage),
            number(cache.loads.count),
            duration(cache.loads.p95) if cache.loads.count else "-",
        ]
        for name, cache in caches.items()
    ]
    return _table(width, ["cache", "hit rate", "hits", "misses", "entries", "memory", "loads", "load p95"], rows, keep=3)


def _notes(cache: CacheRow, width: int) -> list[str]:
    """Return what is worth a line of its own."""
    notes, name = [], printable(cache.name)
    answers = [f"{many(count, 'hit')} from {printable(tier)}" for tier, count in cache.hits_behind.items()]
    if cache.stale_count:
        answers.append(many(cache.stale_count, "stale answer"))
    if cache.refreshes:
        answers.append(many(cache.refreshes, "refresh", "refreshes"))
    if answers:
        notes.append(f"{name}: {', '.join(answers)}")
    notes += [f"{name}: {trouble}" for trouble in troubles_of(cache.tier_errors, cache.open_breakers).values()]
    if any(cache.evictions.values()):
        notes.append(f"{name}: evicted for {counts_of(cache.evictions)}")
    if any(cache.load_errors.values()):
        notes.append(f"{name}: loads failed with {counts_of(cache.load_errors)}")
    if cache.loads_in_flight:
        notes.append(f"{name}: {many(cache.loads_in_flight, 'load')} in flight, {many(cache.load_waiters, 'caller')} waiting")
    if cache.hot_keys:
        notes.append(_hot_keys(f"{name}: hot keys", cache.hot_keys, width))
    return notes


def _hot_keys(line: str, keys: list[HotKeyRow], width: int) -> str:
    """Return a line with as many of the keys as there is room for, and the first in any case."""
    for place, row in enumerate(keys):
        longer = f"{line}{',' if place else ''} {printable(row.key)} ({row.share:.1%})"
        if place and cell_len(longer) > width:
            break
        line = longer
    return line


def _pools(pools: dict[str, PoolRow], width: int) -> Table:
    rows = [
        [
            printable(name),
            number(pool.acquires),
            "-" if pool.waited is None else number(pool.waited),
            duration(pool.waits.p95) if pool.waits.count else "-",
            f"{number(pool.in_use)}/{number(pool.max_size)}" if pool.max_size else "-",
            f"{pool.mean_in_use:.2g}" if pool.uses.count else "-",
            duration(pool.uses.p50) if pool.uses.count else "-",
            number(pool.total_created),
        ]
        for name, pool in pools.items()
    ]
    return _table(width, ["pool", "acquires", "waited", "wait p95", "in use", "mean use", "use p50", "created"], rows, keep=3)


def _pool_notes(pool: PoolRow) -> list[str]:
    """Return what is worth a line of its own."""
    notes, name = [], printable(pool.name)
    if pool.timeouts:
        notes.append(f"{name}: {many(pool.timeouts, 'caller')} timed out")
    if pool.rejected:
        notes.append(f"{name}: {many(pool.rejected, 'caller')} rejected because too many waited")
    if pool.waiting:
        notes.append(f"{name}: {many(pool.waiting, 'caller')} waiting now")
    if pool.leaks:
        notes.append(f"{name}: {many(pool.leaks, 'resource')} held for suspiciously long, or dropped without being released")
    if pool.creations.count:
        times = f"{duration(pool.creations.p50)} (p50), {duration(pool.creations.max)} at most"
        notes.append(f"{name}: {many(pool.creations.count, 'creation')} took {times}")
    if any(pool.create_errors.values()):
        notes.append(f"{name}: creations failed with {counts_of(pool.create_errors)}")
    if any(pool.destroyed.values()):
        notes.append(f"{name}: destroyed for {counts_of(pool.destroyed)}")
    return notes


def _batches(batches: dict[str, BatchRow], width: int) -> Table:
    rows = [
        [
            printable(name),
            number(_items(batch)),
            number(sum(batch.flushes.values())),
            number(batch.mean_size) if batch.max_size else "-",
            number(batch.queue_size),
            duration(batch.waits.p95) if batch.waits.count else "-",
            duration(batch.durations.p95) if batch.durations.count else "-",
        ]
        for name, batch in batches.items()
    ]
    return _table(width, ["batch", "items", "batches", "mean size", "queued", "wait p95", "time p95"], rows, keep=3)


def _batch_notes(batch: BatchRow) -> list[str]:
    """Return what is worth a line of its own."""
    notes, name = [], printable(batch.name)
    if any(batch.flushes.values()):
        notes.append(f"{name}: flushed for {counts_of(batch.flushes)}")
    if any(batch.item_errors.values()):
        notes.append(f"{name}: items failed with {counts_of(batch.item_errors)}")
    if batch.max_queue is not None and batch.queue_size >= batch.max_queue:
        notes.append(f"{name}: the queue is full, with {many(batch.queue_size, 'item')}")
    return notes


def _items(batch: BatchRow) -> int:
    return batch.item_count + sum(batch.item_errors.values())


def _lazy_loads(loads: dict[str, LazyRow], width: int) -> Table:
    rows = [
        [
            printable(name),
            number(row.loads.count),
            number(sum(row.load_errors.values())),
            duration(row.loads.p50) if row.loads.count else "-",
            duration(row.loads.max) if row.loads.count else "-",
        ]
        for name, row in loads.items()
    ]
    return _table(width, ["lazy load", "loads", "errors", "p50", "max"], rows, keep=2)


def _operations(operations: dict[str, OperationRow], width: int) -> Table:
    rows = [
        [
            printable(name),
            number(row.count),
            number(row.error_count),
            duration(row.p50_duration),
            duration(row.p95_duration),
            duration(row.total_duration),
            duration(row.avg_duration),
            duration(row.p99_duration),
        ]
        for name, row in operations.items()
    ]
    return _table(width, ["operation", "calls", "errors", "p50", "p95", "total", "mean", "p99"], rows, keep=3)
