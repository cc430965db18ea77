"""The report as one HTML page: everything is in the file, it needs no network and runs no script."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from otel_perfopt.errors import MissingExtra
from otel_perfopt.report.model import PerformanceReport
from otel_perfopt.report.words import printable

try:
    import jinja2

    from otel_perfopt.report import html_batches, html_caches, html_lazy_loads, html_operations, html_pools, html_summary
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
    caches = _named(report.caches, lambda row: row.request_count)
    pools = _named(report.pools, lambda row: row.acquires)
    batches = _named(report.batches, html_batches.items_of)
    lazy_loads = _named(report.lazy_loads, lambda row: row.loads.total)
    operations = _named(report.operations, lambda row: row.total_duration)
    notes = [
        *html_caches.notes(caches),
        *html_pools.notes(pools),
        *html_batches.notes(batches),
        *html_lazy_loads.notes(lazy_loads),
        *html_operations.notes(operations),
    ]
    notes.sort(key=lambda note: (note.tone != "bad", -note.weight, note.name))
    sections = (
        html_caches.caches(caches),
        html_pools.pools(pools),
        html_batches.batches(batches),
        html_lazy_loads.lazy_loads(lazy_loads),
        html_operations.operations(operations),
    )
    return page(
        "report.html",
        title=title,
        lead=html_summary.lead(report),
        tiles=list(html_summary.tiles(report)),
        notes=notes[:NOTES],
        more_notes=max(0, len(notes) - NOTES),
        sections=[section for section in sections if section["count"]],
    )


def page(template: str, /, **values: Any) -> str:
    """Return a template of the package with these values; every one of them is escaped."""
    text = _templates.get_template(template).render(values)
    return text.encode(errors="replace").decode()


def _named(rows: Mapping[str, T], weight: Callable[[T], float]) -> dict[str, T]:
    """Return the rows with the largest weight first, by a name that can be shown, each by its own."""
    named: dict[str, T] = {}
    for name, row in sorted(rows.items(), key=lambda item: (-weight(item[1]), item[0])):
        shown = printable(name)
        while shown in named:
            shown += "'"
        named[shown] = row
    return named
