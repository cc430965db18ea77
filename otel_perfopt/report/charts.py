"""The charts of the HTML report: SVG from pygal, without its styles and scripts; the page's style sheet gives the colours.

The classes ``color-0``, ``color-1`` ... say which series a mark belongs to. Every mark has its figures as a tooltip.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import pygal
from pygal.style import Style
from rich.cells import cell_len, chop_cells

from otel_perfopt.report.html_words import duration
from otel_perfopt.report.model import LatencySummary
from otel_perfopt.report.words import number

__all__ = ("bars", "distribution", "percentiles", "stacked")

# pygal adds a finder for plug-ins of maps that has no find_spec, so that whoever asks all finders fails (pygal 3.1).
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

WIDTH = 340
ROW = 26
LABEL = 20  # columns of a name beside its bar
PERCENTILES = ("p50", "p95", "p99")

_TICKS = ((0.3, (1, 2, 5)), (0.47, (1, 3)), (1.0, (1,)))  # the shortest way between two of them, and their digits
_NUMBER = re.compile(r"\d+\.\d+")
_COORDINATES = ("x", "y", "cx", "cy", "width", "height", "d", "transform")


def bars(label: str, values: Mapping[str, float], *, show: Callable[[float], str], limit: float | None = None) -> str:
    """Return a bar for each name, the first on top.

    >>> svg = bars("Hit rates", {"users": 0.5}, show="{:.0%}".format, limit=1.0)
    >>> 'aria-label="Hit rates"' in svg and "users: 50%" in svg
    True

    Args:
        label: what the chart shows, for those who do not see it.
        values: what to show, by name.
        show: makes the text of a value.
        limit: the largest possible value, for an axis of shares; None for the largest one there is, and no axis.
    """
    top = limit or max(values.values()) or 1.0
    chart = _rows(pygal.HorizontalBar, values, margin_right=52, range=(0, top), print_values=True, print_values_position="top")
    chart.value_formatter = show
    if limit is None:
        chart.height = ROW * len(values) + 4
    chart.y_labels = [{"value": share * top, "label": f"{share:.0%}"} for share in (0, 0.5, 1)]
    chart.show_x_labels = limit is not None  # pygal means the horizontal axis, that of the values
    chart.add("", _reverse({"value": value, "label": f"{name}: {show(value)}"} for name, value in values.items()))
    return _svg(chart, label, values)


def stacked(label: str, values: Mapping[str, Mapping[str, int]], series: Sequence[str]) -> str:
    """Return a bar of several parts for each name, the first on top.

    Args:
        label: what the chart shows, for those who do not see it.
        values: the counts of the parts, by name.
        series: the parts in their order.
    """
    top = max(sum(parts.values()) for parts in values.values()) or 1
    chart = _rows(pygal.HorizontalStackedBar, values, margin_right=18, range=(0, top))
    chart.y_labels = [{"value": tick, "label": number(tick)} for tick in _round_ticks(top)]
    for part in series:
        counts = ((name, parts.get(part, 0)) for name, parts in values.items())
        chart.add(part, _reverse({"value": count, "label": f"{name}: {count:,} {part}"} for name, count in counts))
    return _svg(chart, label, values)


def percentiles(label: str, values: Mapping[str, LatencySummary]) -> str:
    """Return three dots for each name, at the percentiles 50, 95 and 99, on a logarithmic scale; the first is on top."""
    names = list(values)[::-1]
    chart = _chart(
        pygal.XY, height=ROW * len(names) + 30, margin_right=16, allow_interruptions=True, dots_size=4, show_y_guides=False
    )
    chart.range = (-0.5, len(names) - 0.5)
    chart.y_labels = [{"value": place, "label": _short(name)} for place, name in enumerate(names)]
    _log_axis(chart, [value for row in values.values() for value in (row.p50, row.p99)])
    points: list[Any] = []
    for place, name in enumerate(names):
        points += [(_log(values[name].p50), place), (_log(values[name].p99), place), (None, None)]
    chart.add("", points, show_dots=False)
    for percentile in PERCENTILES:
        times = [(place, name, getattr(values[name], percentile)) for place, name in enumerate(names)]
        dots = [{"value": (_log(time), place), "label": f"{name}: {percentile} {duration(time)}"} for place, name, time in times]
        chart.add(percentile, dots, stroke=False)
    return _svg(chart, label, values)


def distribution(label: str, row: LatencySummary) -> str:
    """Return how many durations lie between which bounds, on a logarithmic scale, with lines at the percentiles.

    The distribution may be a part of the durations, such as those above zero; a percentile below it has no line.
    """
    boxes = list(_boxes(row.distribution))
    top = max(count for count, _, _ in boxes)
    chart = _chart(pygal.Histogram, height=150, margin_right=16, range=(0, top * 1.08))
    chart.y_labels = [{"value": tick, "label": number(tick)} for tick in _round_ticks(top)]
    low, high = _log_axis(chart, [bound for _, *bounds in boxes for bound in bounds])
    tips = [f"{count:,} took {duration(lower)} to {duration(upper)}" for count, lower, upper in boxes]
    values = [(count, _log(lower), _log(upper)) for count, lower, upper in boxes]
    marks: list[Any] = [{"value": value, "label": tip} for value, tip in zip(values, tips, strict=True)]
    chart.add("", [*marks, (None, low, high)])  # the last one draws nothing, but makes room
    for percentile in PERCENTILES:
        time = getattr(row, percentile)
        half = (high - low) / 400
        line = {"value": (top * 1.08, _log(time) - half, _log(time) + half), "label": f"{percentile} {duration(time)}"}
        chart.add(percentile, [line] if _log(time) >= low else [])
    return _svg(chart, label, ())


def _boxes(pairs: Sequence[tuple[float, int]]) -> Iterator[tuple[int, float, float]]:
    """Yield the count and the bounds of each bucket in use; the lowest gets the width of its neighbour."""
    factor = pairs[-1][0] / pairs[-2][0] if len(pairs) > 1 else 2 ** (1 / 8)
    lower = 0.0
    for upper, count in pairs:
        if count:
            yield count, max(lower, upper / factor), upper
        lower = upper


def _chart(kind: Callable[..., Any], **options: Any) -> Any:
    style = Style(label_font_size=11, value_font_size=11, font_family="sans-serif")
    plain: dict[str, Any] = {"js": [], "css": [], "no_prefix": True, "show_legend": False, "disable_xml_declaration": True}
    return kind(style=style, width=WIDTH, margin=2, truncate_label=-1, rounded_bars=2, **plain, **options)


def _rows(kind: Callable[..., Any], names: Mapping[str, Any], **options: Any) -> Any:
    chart = _chart(kind, height=ROW * len(names) + 26, **options)
    chart.x_labels = [_short(name) for name in names][::-1]
    return chart


def _reverse(values: Iterable[Any]) -> list[Any]:
    """Return the values from the bottom to the top, as pygal draws them."""
    return list(values)[::-1]


def _short(name: str) -> str:
    """Return the name, its last parts, or its beginning and its end.

    >>> _short("shop.orders.OrderService.find"), _short("a" * 30)
    ('…OrderService.find', 'aaaaaaaaa…aaaaaaaaaa')
    """
    if cell_len(name) <= LABEL:
        return name
    parts = name.split(".")
    while len(parts) > 1:
        del parts[0]
        if cell_len(".".join(parts)) < LABEL:
            return "…" + ".".join(parts)
    start = chop_cells(name, LABEL // 2 - 1)[0]
    end = chop_cells(name[::-1], LABEL - cell_len(start) - 1)[0][::-1]
    return f"{start}…{end}"


def _log(seconds: float) -> float:
    return math.log10(max(seconds, 0.95e-9))  # what is shorter counts as zero


def _log_axis(chart: Any, values: Sequence[float]) -> tuple[float, float]:
    """Give the chart an axis that has all these durations, and return its bounds."""
    low, high = _log(min(values)), _log(max(values))
    spare = max(0.15 - (high - low) / 2, (high - low) * 0.03)
    chart.xrange = low, high = low - spare, high + spare
    ticks = list(_ticks(low, high, apart=(high - low) * 48 / (WIDTH - 100)))
    chart.x_labels = [{"value": _log(tick), "label": _tick(tick)} for tick in ticks]
    return low, high


def _ticks(low: float, high: float, *, apart: float) -> Iterator[float]:
    """Yield round durations between two logarithms that are at least `apart` from each other."""
    digits: Sequence[int] = next((digits for gap, digits in _TICKS if gap >= apart), (1,))
    step = max(1, math.ceil(apart)) if digits == (1,) else 1
    for power in range(math.floor(low), math.ceil(high) + 1):
        if power % step == 0:
            yield from (tick for tick in (digit * 10.0**power for digit in digits) if low <= math.log10(tick) <= high)


def _tick(seconds: float) -> str:
    """Return a round duration.

    >>> _tick(1e-9), _tick(0.0005), _tick(20.0), _tick(5000.0)
    ('1 ns', '500 µs', '20 s', '5000 s')
    """
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        if seconds * factor >= 0.999:
            return f"{seconds * factor:.0f} {unit}"
    raise AssertionError


def _round_ticks(top: float) -> list[float]:
    """Return zero, and one or two round numbers up to `top`.

    >>> _round_ticks(2300), _round_ticks(1)
    ([0, 1000, 2000], [0, 1])
    """
    step = 10 ** math.floor(math.log10(top))
    step *= 5 if top >= 10 * step / 2 else 2 if top >= 4 * step else 1
    return list(range(0, math.floor(top) + 1, step))


def _svg(chart: Any, label: str, names: Iterable[str]) -> str:
    """Return the chart without what belongs to the page, or differs from one day to the next."""
    full = {_short(name): name for name in names}
    chart.add_xml_filter(lambda root: _cleaned(root, label, full))
    svg: str = chart.render(is_unicode=True)
    return svg


def _cleaned(root: Element, label: str, names: Mapping[str, str]) -> Element:
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag in {"defs", "desc", "title"} or _is_empty(child):
                if child.tag == "desc" and child.get("class") == "label":
                    parent.set("_tip", child.text or "")
                parent.remove(child)
    for element in root.iter():
        tip = element.attrib.pop("_tip", None)
        caption = element.find("text")
        if caption is not None and "guides" in element.get("class", ""):
            tip = names.get(caption.text or "")
        if tip:
            title = element.makeelement("title", {})  # of the kind that pygal builds with, be it that of lxml
            title.text = tip
            element.insert(0, title)
        if element.get("class") == "value":
            element.set("text-anchor", "start")
        for key in _COORDINATES:
            if key in element.attrib:
                element.set(key, _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), element.attrib[key]))
    for key in ("id", "xmlns"):
        root.attrib.pop(key, None)
    root.set("class", "chart")
    root.set("role", "img")
    root.set("aria-label", label)
    return root


def _is_empty(element: Element) -> bool:
    return "background" in element.get("class", "").split() or "tooltip-overlay" in element.get("class", "").split()
