"""The report as text: tables that read well in 80 columns."""

from io import StringIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_perfopt.report.model import CacheRow, OperationRow, PerformanceReport

__all__ = ("render",)

MIN_WIDTH = 40


def render(report: PerformanceReport, *, width: int, color: bool) -> str:
    """Return `report` as tables of `width` columns."""
    if width < MIN_WIDTH:
        raise ValueError(f"width={width} is too narrow for a table; use {MIN_WIDTH} or more")
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=color, no_color=not color, highlight=False, legacy_windows=False)
    for part in _parts(report):
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _parts(report: PerformanceReport) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(_headline(report))]
    if report.caches:
        parts += ["", _caches(list(report.caches.values()))]
        notes = [note for cache in report.caches.values() for note in _notes(cache)]
        parts += [Text(note) for note in notes]
    if report.operations:
        parts += ["", _operations(report.operations)]
        parts += [Text(f"{name}: failed with {_counts(row.errors)}") for name, row in report.operations.items() if row.errors]
    return parts


def _headline(report: PerformanceReport) -> str:
    summary = report.summary
    if not report.caches and not report.operations:
        return "Performance report: nothing was cached or measured yet."
    said = []
    if report.caches:
        said.append(f"{summary.cache_hit_rate:.1%} of cache requests were hits")
    if report.operations:
        said.append(f"{summary.total_operations:,} operations took {duration(summary.total_duration)}")
    return f"Performance report: {'; '.join(said)}."


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(columns[0], overflow="fold", ratio=1, min_width=8)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _caches(caches: list[CacheRow]) -> Table:
    table = _table("cache", "hit rate", "hits", "misses", "entries", "memory", "loads", "load p95")
    for cache in caches:
        limit = "" if cache.max_size is None else f"/{cache.max_size:,}"
        table.add_row(
            Text(cache.name),
            f"{cache.hit_rate:.1%}",
            f"{cache.hit_count:,}",
            f"{cache.miss_count:,}",
            f"{cache.size:,}{limit}",
            size(cache.memory_usage),
            f"{cache.loads.count:,}",
            duration(cache.loads.p95) if cache.loads.count else "-",
        )
    return table


def _notes(cache: CacheRow) -> list[str]:
    """Return what is worth a line of its own."""
    notes = []
    if any(cache.evictions.values()):
        notes.append(f"{cache.name}: evicted for {_counts(cache.evictions)}")
    if cache.load_errors:
        notes.append(f"{cache.name}: loads failed with {_counts(cache.load_errors)}")
    if cache.loads_in_flight:
        notes.append(f"{cache.name}: {cache.loads_in_flight} loads in flight, {cache.load_waiters} callers wait for them")
    return notes


def _operations(operations: dict[str, OperationRow]) -> Table:
    table = _table("operation", "calls", "errors", "total", "mean", "p50", "p95", "p99")
    for name, row in operations.items():
        times = (row.total_duration, row.avg_duration, row.p50_duration, row.p95_duration, row.p99_duration)
        table.add_row(Text(name), f"{row.count:,}", f"{row.error_count:,}", *map(duration, times))
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} ({count:,})" for kind, count in sorted(counts.items()) if count)


def duration(seconds: float) -> str:
    """Return seconds with three digits and a unit that fits.

    >>> duration(0.00123), duration(0.000045), duration(75.3)
    ('1.23 ms', '45.0 us', '75.3 s')
    """
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return _three_digits(seconds * factor) + f" {unit}"
    raise AssertionError


def size(count: float) -> str:
    """Return bytes with three digits and a unit that fits.

    >>> size(512), size(1536), size(3 * 2**30)
    ('512 B', '1.50 KiB', '3.00 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            return _three_digits(count) + f" {unit}"
    raise AssertionError


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
