"""Results for people, as a table of ratios, and for programs, as JSON with every round."""

import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Result, Spread

__all__ = ("as_dict", "print_table")

WIDTH = 80
COLUMNS = {"": 36, "cost": 7, "against": 7, "range": 15, "limit": 6, " ": 1}
MARKS = {True: "✓", False: "✗", None: "?"}
LIBRARIES = (
    "otel-perfopt", "opentelemetry-api", "opentelemetry-sdk", "wrapt",
    "async-lru", "cachebox", "cachetools", "diskcache", "libcachesim", "moka-py", "theine",
    "asyncpg", "psycopg", "psycopg-pool", "redis", "sqlalchemy",
)  # fmt: skip


def print_table(results: Sequence[Result], *, quick: bool, console: Console | None = None) -> None:
    """Print for each benchmark the library, what it is compared with and its peers, and at the end which limits hold.

    Args:
        results: what was measured.
        quick: whether it was too little to judge by.
        console: where to; a terminal of 80 columns by default.
    """
    console = console or Console(width=WIDTH, highlight=False)
    console.print(_table([], show_header=True))
    for result in results:
        console.print(f"[bold]{result.benchmark.title}[/bold]")
        console.print(_table(_rows(result, quick=quick)))
        for name, reason in result.missing.items():
            console.print(f"  {name}: {reason}")
        console.print()
    if quick:
        console.print("A few calls of each (--quick): everything runs, the figures mean nothing.")
        return
    verdicts = {result.benchmark.name: result.holds() for result in results if result.benchmark.limit is not None}
    console.print(f"{list(verdicts.values()).count(True)} of {len(verdicts)} limits hold.")
    for verdict, text in ((False, "Missed"), (None, "Not told, because the other side is missing")):
        names = [name for name, holds in verdicts.items() if holds is verdict]
        if names:
            console.print(f"{text}: {', '.join(names)}.")


def _table(rows: Iterable[Sequence[str]], *, show_header: bool = False) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_header=show_header)
    for heading, width in COLUMNS.items():
        table.add_column(heading, width=width, no_wrap=True, justify="right" if heading.strip() else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _rows(result: Result, *, quick: bool) -> Iterator[Sequence[str]]:
    benchmark, took_part = result.benchmark, result.took_part()
    ours, base = (contestant.name for contestant in benchmark.contestants[:2])
    for name in took_part:
        cost = cost_text(result.cost(name).median, benchmark.measure)
        compared = result.compared(name) if base in took_part else None
        row = [f"  {name}", cost, *comparison(compared, benchmark.measure, is_base=name == base)]
        if name == ours and benchmark.limit is not None:
            row += [limit_text(benchmark.limit, benchmark.measure), "" if quick else MARKS[result.holds()]]
        yield row


def comparison(compared: Spread | None, measure: str, *, is_base: bool) -> tuple[str, str]:
    """Return the median and the range of a comparison, as text."""
    if compared is None:
        return "", ""
    if measure == "points":
        return ("", "") if is_base else (f"{compared.median:+.2f}", f"{compared.low:+.2f} to {compared.high:+.2f}")
    if is_base:
        return "1x", ""
    digits = 2 if compared.median < 2 else 1
    return f"{compared.median:.{digits}f}x", f"{compared.low:.{digits}f}-{compared.high:.{digits}f}"


def limit_text(limit: float, measure: str) -> str:
    """Return a limit as text."""
    if measure == "seconds":
        return cost_text(limit, measure)
    return f"±{limit:g}" if measure == "points" else f"{limit:g}x"


def cost_text(cost: float, measure: str) -> str:
    """Return a cost as text: seconds in a unit that fits, bytes, or a percentage."""
    if measure == "points":
        return f"{cost:.1%}"
    if measure == "bytes":
        return f"{cost:.0f} B"
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if cost * factor < 1000:
            return f"{cost * factor:.3g} {unit}"
    return f"{cost:.3g} s"


def as_dict(results: Iterable[Result], *, quick: bool) -> dict[str, Any]:
    """Return results with all their rounds, and what they were measured with, as plain values."""
    return {"environment": _environment(), "quick": quick, "benchmarks": [_as_dict(result) for result in results]}


def _environment() -> dict[str, Any]:
    """Return the versions of everything that has an influence."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _as_dict(result: Result) -> dict[str, Any]:
    benchmark, took_part = result.benchmark, result.took_part()
    base = benchmark.contestants[1].name
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "base": base,
        "measure": benchmark.measure,
        "limit": benchmark.limit,
        "holds": result.holds(),
        "costs": {name: result.cost(name)._asdict() for name in took_part},
        "compared": {name: result.compared(name)._asdict() for name in took_part if base in took_part},
        "missing": result.missing,
        "rounds": [found.costs for found in result.rounds],
    }
