"""The report as one HTML page: everything is in the file, it needs no network and runs no script."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from otel_perfopt.errors import MissingExtra
from otel_perfopt.report.html_words import counts, many, percent
from otel_perfopt.report.model import CacheRow, OperationRow, PerformanceReport
from otel_perfopt.report.text import number, printable, size

try:
    import jinja2

    from otel_perfopt.report import html_sections
    from otel_perfopt.report.charts import duration
except ImportError as error:
    raise MissingExtra(
        f"the HTML report needs {error.name}: pip install 'otel-perfopt[html]'", context={"extra": "html"}
    ) from error

__all__ = ("page", "render")

T = TypeVar("T")

NOTES = 8

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("otel_perfopt.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(report: PerformanceReport, *, title: str) -> str:
    """Return `report` as an HTML page.

    >>> from otel_perfopt.report.model import Summary
    >>> "Nothing was cached or measured yet" in render(PerformanceReport(Summary(), {}, {}), title="Empty")
    True
    """
    caches = sorted(report.caches.items(), key=lambda item: (-item[1].hit_count - item[1].miss_count, item[0]))
    operations = sorted(report.operations.items(), key=lambda item: (-item[1].total_duration, item[0]))
    shown_caches, shown_operations = _named(caches), _named(operations)
    notes = _notes(shown_caches, shown_operations)
    sections = (html_sections.caches(shown_caches), html_sections.operations(shown_operations))
    return page(
        "report.html",
        title=title,
        lead=list(_lead(report)),
        tiles=list(_tiles(report)),
        notes=notes[:NOTES],
        more_notes=max(0, len(notes) - NOTES),
        sections=[section for section in sections if section["table"]["rows"]],
    )


def page(template: str, /, **values: Any) -> str:
    """Return a template of the package with these values; every one of them is escaped."""
    text = _templates.get_template(template).render(values)
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Tile:
    """A large figure: the text, its meaning, the report's value and what to think of it."""

    text: str
    meaning: str
    value: float
    tone: str = ""


def _named(rows: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return the rows by a name that can be shown, each by its own."""
    named: dict[str, T] = {}
    for name, row in rows:
        shown = printable(name)
        while shown in named:
            shown += "'"
        named[shown] = row
    return named


def _lead(report: PerformanceReport) -> Iterator[str]:
    """Yield the whole report in a few sentences."""
    summary = report.summary
    if not report.caches and not report.operations:
        yield "Nothing was cached or measured yet."
    requests = sum(row.hit_count + row.miss_count for row in report.caches.values())
    if requests:
        yield f"{percent(summary.cache_hit_rate)} of {many(requests, 'cache request')} were answered from the cache."
    elif report.caches:
        yield f"{many(len(report.caches), 'cache')} had no request yet."
    if report.operations:
        failed = sum(row.error_count for row in report.operations.values())
        outcome = f"{failed:,} of them failed" if failed else "none failed"
        yield f"{many(summary.total_operations, 'call')} took {duration(summary.total_duration)} in all; {outcome}."


def _tiles(report: PerformanceReport) -> Iterator[Tile]:
    summary, caches, operations = report.summary, report.caches.values(), report.operations.values()
    if caches:
        yield Tile(percent(summary.cache_hit_rate), "cache hit rate", summary.cache_hit_rate, "accent")
        requests = sum(row.hit_count + row.miss_count for row in caches)
        yield Tile(number(requests), "cache requests", requests)
        memory = sum(row.memory_usage for row in caches)
        yield Tile(size(memory), "in cached values", memory)
    if operations:
        yield Tile(number(summary.total_operations), "calls", summary.total_operations)
        yield Tile(duration(summary.total_duration), "spent in calls", summary.total_duration)
    failures = sum(row.error_count for row in operations) + sum(sum(row.load_errors.values()) for row in caches)
    if caches or operations:
        yield Tile(number(failures), "failed calls and loads", failures, "bad" if failures else "")


def _notes(caches: Mapping[str, CacheRow], operations: Mapping[str, OperationRow]) -> list[tuple[str, str, str]]:
    """Return what is worth a look as tone, name and what it is about; the most frequent first."""
    found: list[tuple[int, str, str, str]] = []
    for name, call in operations.items():
        if call.error_count:
            text = f"failed {call.error_count:,} of {many(call.count, 'time')}: {counts(call.errors)}"
            found.append((call.error_count, "bad", name, text))
    for name, row in caches.items():
        failed = sum(row.load_errors.values())
        if failed:
            found.append((failed, "bad", name, f"{many(failed, 'load')} failed: {counts(row.load_errors)}"))
        pushed = row.evictions.get("capacity", 0) + row.evictions.get("weight", 0)
        if pushed * 100 > row.hit_count + row.miss_count:
            full = "" if row.max_size is None else f"; it holds {row.size:,} of at most {row.max_size:,}"
            found.append((pushed, "warn", name, f"{many(pushed, 'entry', 'entries')} had to leave for lack of room{full}"))
        if row.load_waiters:
            text = f"{many(row.load_waiters, 'caller')} for {many(row.loads_in_flight, 'load')} at this moment"
            found.append((row.load_waiters, "warn", name, f"waiting: {text}"))
    found.sort(key=lambda note: (note[1] != "bad", -note[0], note[2]))
    return [note[1:] for note in found]
