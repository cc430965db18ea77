"""What the sections of the HTML report are made of: tables with all figures, charts, distributions and notes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from otel_perfopt.report import charts
from otel_perfopt.report.html_words import duration
from otel_perfopt.report.model import LatencySummary
from otel_perfopt.report.words import many, number, printable

__all__ = ("Card", "Column", "Note", "cards", "chart", "overview", "percentile_columns", "reasons_of", "section", "top")

T = TypeVar("T")

SHOWN = 15  # rows of a table before "more"
BARS = 12  # names in a chart
CARDS = 6  # cells of the grid of those with a chart of their own, and as many that open on request
TALL, TALL_BARS = 6, 18  # with more names than this a chart takes two cells, and has room for so many


class Note(NamedTuple):
    """Something worth a look.

    Attributes:
        weight: how often it happened.
        tone: "bad" or "warn".
        name: what it happened to.
        text: what it is.
    """

    weight: int
    tone: str
    name: str
    text: str


class Card(NamedTuple):
    """What is drawn of the durations of one component.

    Attributes:
        latency: the durations.
        extent: how many there are, and how long they are.
        facts: what else there is to say, as a title and a text.
    """

    latency: LatencySummary
    extent: str
    facts: Iterable[tuple[str, str]] = ()

    @classmethod
    def of(cls, latency: LatencySummary, facts: Iterable[tuple[str, str]] = ()) -> "Card":
        """Return the card of durations that speak for themselves."""
        return cls(latency, f"{many(latency.count, 'time')}, {duration(latency.min)} to {duration(latency.max)}", facts)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, the value of a row, and the value as text."""

    title: str
    value: Callable[[Any], float | None]
    show: Callable[[Any], str] = number

    def cell(self, row: Any) -> dict[str, Any]:
        """Return the text and the value of a cell, the text a dash where there is none."""
        value = self.value(row)
        return {"value": value, "text": "-" if value is None else self.show(value)}


def percentile_columns(
    title: str, latency: Callable[[Any], LatencySummary], percentiles: Sequence[str] = charts.PERCENTILES
) -> Iterator[Column]:
    """Yield a column for each of these percentiles of what `latency` returns for a row."""

    def value_of(percentile: str) -> Callable[[Any], float | None]:
        return lambda row: getattr(latency(row), percentile) if latency(row).count else None

    return (Column(f"{title} {percentile}", value_of(percentile), duration) for percentile in percentiles)


def section(
    title: str,
    one: str,
    order: str,
    rows: Mapping[str, Any],
    columns: Iterable[Column],
    *,
    charts: Iterable[dict[str, Any]],
    cards: Iterable[dict[str, Any]],
    lists: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return a section of the page.

    Args:
        title: its heading.
        one: what a row is.
        order: what the rows are sorted by.
        rows: the rows by names that can be shown, in their order.
        columns: those of the table.
        charts: what the template's macro ``chart`` needs, for each.
        cards: the same for ``cards``.
        lists: the same for ``lists``.
    """
    columns = tuple(columns)
    table = {
        "head": [one, *(column.title for column in columns)],
        "rows": [(name, [column.cell(row) for column in columns]) for name, row in rows.items()],
        "shown": SHOWN,
    }
    key = title.lower().replace(" ", "-")
    texts = {"key": key, "title": title, "order": order, "count": len(rows), "bars": BARS}
    return texts | {"table": table, "charts": list(charts), "cards": list(cards), "lists": list(lists)}


def chart(title: str, svg: str, legend: Iterable[str] = (), palette: str = "accent") -> dict[str, Any]:
    """Return a chart with its title; `palette` is a class of the style sheet that gives the series their colours."""
    return {"title": title, "svg": svg, "legend": list(legend), "palette": palette}


def overview(title: str, label: str, latencies: Mapping[str, LatencySummary]) -> list[dict[str, Any]]:
    """Return the chart that compares the durations of components, if there are several, to show before their cards."""
    if len(latencies) < 2:
        return []
    palette = "times tall" if len(latencies) > TALL else "times"
    return [chart(title, charts.percentiles(label, top(latencies, TALL_BARS)), charts.PERCENTILES, palette)]


def cards(title: str, rows: Mapping[str, Card], before: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the components that have durations: those to show, those to show on request, and how many are left out.

    Args:
        title: what they have in common.
        rows: what to draw, by name.
        before: charts to show before them.
    """
    usable = {name: card for name, card in rows.items() if any(count for _, count in card.latency.distribution)}
    drawn = [_card(name, card) for name, card in list(usable.items())[: 2 * CARDS]]
    shown = CARDS + 1 if len(rows) > TALL and before else CARDS - len(before)
    return {
        "title": title,
        "overview": before,
        "shown": drawn[:shown],
        "more": drawn[shown:],
        "left_out": len(usable) - len(drawn),
    }


def _card(name: str, card: Card) -> dict[str, Any]:
    times = [(percentile, duration(getattr(card.latency, percentile))) for percentile in charts.PERCENTILES]
    drawn = charts.distribution(f"Distribution of the durations of {name}", card.latency)
    return chart(name, drawn, palette="times") | {"extent": card.extent, "times": times, "facts": list(card.facts)}


def reasons_of(counts: Mapping[str, Mapping[str, int]], known: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return what happened by reason where something did, and the reasons, the known ones first; all of them can be shown."""
    happened = {
        name: {printable(reason): count for reason, count in by_reason.items() if count} for name, by_reason in counts.items()
    }
    found = {reason for by_reason in happened.values() for reason in by_reason}
    reasons = [reason for reason in known if reason in found] + sorted(found.difference(known))
    return {name: by_reason for name, by_reason in happened.items() if by_reason}, reasons


def top(rows: Mapping[str, T], count: int = BARS) -> dict[str, T]:
    """Return the first rows."""
    return dict(list(rows.items())[:count])
