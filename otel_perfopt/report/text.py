"""The report as text: tables that read well in 80 columns."""

import re
from collections.abc import Iterable
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_perfopt.report.model import CacheRow, OperationRow, PerformanceReport

__all__ = ("render",)

MIN_WIDTH = 40
NAME_WIDTH = 20  # a table leaves out columns rather than fold the names more than this


def render(report: PerformanceReport, *, width: int, color: bool) -> str:
    """Return `report` as tables of `width` columns."""
    if width < MIN_WIDTH:
        raise ValueError(f"width={width} is too narrow for a table; use {MIN_WIDTH} or more")
    file = StringIO()
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
        parts += _listed(note for cache in report.caches.values() for note in _notes(cache))
    if report.operations:
        parts += ["", _operations(report.operations, width)]
        parts += _listed(
            f"{printable(name)}: failed with {_counts(row.errors)}" for name, row in report.operations.items() if row.errors
        )
    return parts


def _listed(notes: Iterable[str]) -> list[RenderableType]:
    """Return a blank line and the notes, or nothing at all."""
    parts: list[RenderableType] = [Text(note) for note in notes]
    return ["", *parts] if parts else []


def _headline(report: PerformanceReport, width: int) -> str:
    summary = report.summary
    if not report.caches and not report.operations:
        return "Performance report: nothing was cached or measured yet."
    said = []
    if report.caches:
        said.append(f"{summary.cache_hit_rate:.1%} of cache requests were hits")
    if report.operations:
        said.append(f"{number(summary.total_operations)} operations took {duration(summary.total_duration)}")
    line = f"Performance report: {'; '.join(said)}."
    return line if len(line) <= width else "\n".join(["Performance report:", *(f"  {part}" for part in said)])


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


def _notes(cache: CacheRow) -> list[str]:
    """Return what is worth a line of its own."""
    notes, name = [], printable(cache.name)
    if any(cache.evictions.values()):
        notes.append(f"{name}: evicted for {_counts(cache.evictions)}")
    if cache.load_errors:
        notes.append(f"{name}: loads failed with {_counts(cache.load_errors)}")
    if cache.loads_in_flight:
        notes.append(f"{name}: {cache.loads_in_flight:,} loads in flight, {cache.load_waiters:,} callers wait for them")
    return notes


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


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{printable(kind)} ({count:,})" for kind, count in sorted(counts.items()) if count)


def printable(name: str) -> str:
    r"""Return `name` with escapes for what would break a line, or tell the terminal to do something.

    >>> print(printable("a\tb\x1b[2J é"))
    a\tb\x1b[2J é
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def folded(name: str, width: int) -> str:
    r"""Return `name` in lines of at most `width` columns, with breaks after full stops where there are any.

    >>> print(folded("shop.orders.OrderService.find", 13))
    shop.orders.
    OrderService.
    find
    """
    lines = [""]
    for part in re.findall(r"[^.]*\.|[^.]+", name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        for char in part:
            if cell_len(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return "\n".join(lines)


def number(count: float) -> str:
    """Return a count; a large one with three digits.

    >>> number(99_999), number(1_234_567)
    ('99,999', '1.23M')
    """
    if count < 1e5:
        return f"{count:,}"
    for unit in ("k", "M", "G", "T"):
        count /= 1000
        if count < 999.5 or unit == "T":
            return _three_digits(count) + unit
    raise AssertionError


def duration(seconds: float) -> str:
    """Return seconds with three digits and a unit that fits.

    >>> duration(0.00123), duration(0.000045), duration(75.3), duration(7200)
    ('1.23 ms', '45.0 us', '75.3 s', '2.00 h')
    """
    if seconds >= 3600:
        return f"{_three_digits(seconds / 3600)} h"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 0.9995 or unit == "us":
            return f"{_three_digits(seconds * factor)} {unit}"
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
        if count < 999.5 or unit == "GiB":
            return _three_digits(count) + f" {unit}"
    raise AssertionError


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
