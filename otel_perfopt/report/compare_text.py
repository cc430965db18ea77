"""A comparison as text, for 80 columns or fewer."""

from collections.abc import Callable, Iterator, Sequence
from io import StringIO

from rich.console import Console
from rich.text import Text

from otel_perfopt.report.compare import Comparison, Figure
from otel_perfopt.report.text import MIN_WIDTH
from otel_perfopt.report.words import duration, folded, number, printable

__all__ = ("change_text", "headline", "render", "value_text")

FULL_WIDTH = 56
_STYLES = {"better": "green", "worse": "red"}


def render(comparison: Comparison, *, width: int, color: bool, everything: bool = False) -> str:
    """Return a comparison in lines of at most `width` columns.

    Args:
        comparison: what to show.
        width: columns; at least 40.
        color: whether to use terminal colours.
        everything: whether what has not changed is shown with its figures, too.
    """
    if width < MIN_WIDTH:
        raise ValueError(f"width={width} is too narrow for a table; use {MIN_WIDTH} or more")
    file = StringIO()
    console = Console(
        file=file, width=width, force_terminal=color, force_jupyter=False, legacy_windows=False, highlight=False,
        color_system="standard" if color else None, no_color=not color,
    )  # fmt: skip
    for part in _parts(comparison, width, everything=everything):
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def headline(comparison: Comparison) -> str:
    """Return the comparison in a sentence.

    >>> headline(Comparison([], [], [("cache", "users")]))
    'Nothing became better or worse; 1 gone.'
    """
    figures = [f"{count:,} {verdict}" for verdict in ("better", "worse") if (count := comparison.count(verdict))]
    said = [f"Figures: {' and '.join(figures)}"] if figures else ["Nothing became better or worse"]
    said += [f"{len(names):,} {word}" for word, names in (("new", comparison.new), ("gone", comparison.gone)) if names]
    return "; ".join(said) + "."


def value_text(figure: Figure, value: float | None, time: Callable[[float], str] = duration) -> str:
    """Return a value of a figure."""
    if value is None:
        return "-"
    return {"rate": lambda rate: f"{rate:.1%}", "time": time, "count": number}[figure.kind](value)


def change_text(figure: Figure) -> str:
    """Return by how much a figure changed: a rate in percentage points, anything else in per cent of what it was.

    >>> change_text(Figure("p50", "time", 0.1, 0.05, "better")), change_text(Figure("hit rate", "rate", 0.5, 0.75, "better"))
    ('-50%', '+25.0 pt')
    """
    change = figure.change
    if change is None:
        return "-"
    if figure.kind == "rate":
        return f"{change * 100:+.1f} pt"
    return f"{change:+.1%}" if abs(change) < 0.0995 else f"{change:+,.0%}"


def _parts(comparison: Comparison, width: int, *, everything: bool) -> Iterator[Text]:
    yield Text(headline(comparison))
    shown = [change for change in comparison.changes if everything or change.weight]
    if shown:
        yield Text("\n" + _line("", "before", "after", "change", width))
    for change in shown:
        yield Text("\n" + folded(f"{change.kind} {printable(change.name)}", width), style="bold")
        for figure in change.figures:
            values = (value_text(figure, figure.before), value_text(figure, figure.after), change_text(figure))
            yield Text(_line(figure.name, *values, width) + "  ").append(figure.verdict, _STYLES.get(figure.verdict, ""))
    for title, names in (("new", comparison.new), ("gone", comparison.gone)):
        if names:
            yield Text(f"\n{title}: {_list(names)}")
    silent = [(change.kind, change.name) for change in comparison.changes if not change.weight]
    if silent and not everything:
        yield Text(f"\nno change that counts (--all shows the figures): {_list(silent)}")


def _line(name: str, before: str, after: str, change: str, width: int) -> str:
    """Return a line of figures, in a narrow terminal without the first one."""
    if width < FULL_WIDTH:
        return f"  {name:10} {after:>9} {change:>8}"
    return f"  {name:10}  {before:>10}  {after:>10}  {change:>10}"


def _list(names: Sequence[tuple[str, str]], most: int = 10) -> str:
    text = ", ".join(f"{kind} {printable(name)}" for kind, name in names[:most])
    return f"{text} and {len(names) - most:,} more" if len(names) > most else text
