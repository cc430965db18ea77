"""A comparison as one HTML page, in the style of the report."""

from otel_perfopt.report.compare import Comparison
from otel_perfopt.report.compare_text import change_text, headline, value_text
from otel_perfopt.report.html import page
from otel_perfopt.report.html_words import duration
from otel_perfopt.report.words import printable

__all__ = ("render",)


def render(comparison: Comparison, *, title: str) -> str:
    """Return a comparison as an HTML page.

    >>> "Nothing became better or worse" in render(Comparison([], [], []), title="Comparison")
    True
    """
    blocks = [
        {
            "kind": change.kind,
            "name": printable(change.name),
            "changed": bool(change.weight),
            "rows": [
                {
                    "name": figure.name,
                    "before": value_text(figure, figure.before, duration),
                    "after": value_text(figure, figure.after, duration),
                    "change": change_text(figure),
                    "verdict": figure.verdict,
                }
                for figure in change.figures
            ],
        }
        for change in comparison.changes
    ]
    lists = [
        (word, [(kind, printable(name)) for kind, name in names])
        for word, names in (("New", comparison.new), ("Gone", comparison.gone))
        if names
    ]
    return page("compare.html", title=title, lead=headline(comparison), blocks=blocks, lists=lists)
