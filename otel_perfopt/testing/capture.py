"""What the library tells during a block: metrics, spans and events, whatever providers are set.

Everything in the process is told, by whichever thread: give caches of a test names of their own, and ask for these.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import Span, Tracer

from otel_perfopt.telemetry import instruments, names, spans
from otel_perfopt.telemetry.aggregate import flush_aggregated
from otel_perfopt.telemetry.derived import flush_derived
from otel_perfopt.telemetry.events import Event, subscribe

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ("Captured", "capture")


class _Series(NamedTuple):
    """A time series: a metric, and its attributes in their order."""

    metric: str
    attributes: tuple[tuple[str, str], ...]


class _Amount(NamedTuple):
    """What a series has come to: how often something was recorded, and the sum; of counters and gauges, both are the value."""

    n: float
    total: float


class Captured:
    """What was told since a capture began, and until it ended."""

    def __init__(self) -> None:
        self._since = instruments.counting_since()
        self._before = dict(_read(("counter", "histogram")))
        self._after: dict[_Series, _Amount] | None = None
        self._spans: list[ReadableSpan] = []
        self._events: list[Event] = []

    def __repr__(self) -> str:
        return f"<Captured {len(self._spans)} spans, {len(self._events)} events>"

    @property
    def spans(self) -> "list[ReadableSpan]":
        """The spans of the library that have ended, the first one first."""
        return list(self._spans)

    @property
    def events(self) -> list[Event]:
        """The events, also those that are otherwise told every few seconds."""
        if self._after is None:
            _flush_events()
        return list(self._events)

    def metric(self, name: str, /, **attributes: str | None) -> float:
        """Return the change of a counter, or how often a histogram was recorded; of other metrics, what they show now.

        Args:
            name: the name of the metric, such as ``"perfopt.cache.requests"``.
            attributes: which series to add up: their attributes by name, or by the end of it, with ``_`` for ``.``, such as
                ``result="hit"`` for ``perfopt.cache.result``. None stands for those that do not have the attribute.

        Raises:
            LookupError: there is no such metric, or it has no such attribute; the message tells which there are.

        >>> from otel_perfopt import Cache
        >>> drinks = Cache("drinks")
        >>> with capture() as captured:
        ...     value = drinks.get("tea", lambda: 5), drinks.get("tea")
        >>> captured.metric("perfopt.cache.requests", name="drinks", result="hit")
        1
        """
        return sum(amount.n for amount in self._amounts(name, attributes))

    def total(self, name: str, /, **attributes: str | None) -> float:
        """Return the sum of what was recorded in a histogram, such as ``"perfopt.batch.size"``; see `metric`.

        Raises:
            LookupError: as `metric` does.
        """
        return sum(amount.total for amount in self._amounts(name, attributes))

    def _amounts(self, name: str, attributes: dict[str, str | None]) -> Iterator[_Amount]:
        row = _row(name)
        wanted = {_attribute(row, keyword): value for keyword, value in attributes.items()}
        before = self._before if self._since == instruments.counting_since() else {}  # a forked child counts from zero
        now = _read((row.kind,)) if self._after is None else self._after.items()
        for series, (n, total) in now:
            found = dict(series.attributes)
            if series.metric == name and all(found.get(key) == value for key, value in wanted.items()):
                old = before.get(series, _NOTHING)
                yield _Amount(n - old.n, total - old.total)

    def _end(self) -> None:
        _flush_events()
        self._after = dict(_read(tuple({row.kind for row in names.METRICS})))


@contextmanager
def capture() -> Iterator[Captured]:
    """Record what the library tells in this block; all others are told the same, and of aggregated events only sooner.

    Spans are those that the application's provider makes, less those that its sampler drops; without a provider, all of them.
    Metrics and events do not depend on providers. Captures may be nested, and overlap in different threads: each has
    everything of its time.

    >>> from otel_perfopt import Cache, emit
    >>> with capture() as captured:
    ...     emit("order.paid", {"amount": 3})
    ...     price = Cache("prices").get("tea", lambda: 5)
    >>> [event.name for event in captured.events if event.name.startswith("order")], [span.name for span in captured.spans]
    (['order.paid'], ['load prices'])
    """
    _flush_events()  # of what was before
    captured = Captured()
    with subscribe("*", captured._events.append):
        _add(captured)
        try:
            yield captured
        finally:
            _remove(captured)
            captured._end()


_captures: tuple[Captured, ...] = ()
_lock = threading.RLock()
_tracer: Tracer | None = None
_NOTHING = _Amount(0, 0)


def _add(captured: Captured) -> None:
    global _captures, _tracer
    with _lock:
        if _tracer is None:
            _tracer = _make_tracer()
        _captures = (*_captures, captured)
        spans.watch(_note, _tracer)


def _remove(captured: Captured) -> None:
    global _captures
    with _lock:
        _captures = tuple(other for other in _captures if other is not captured)
        if not _captures:
            spans.watch(None, None)


def _note(span: Span) -> None:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - importing this module does not load the SDK

    if isinstance(span, ReadableSpan):
        for captured in _captures:
            captured._spans.append(span)


def _make_tracer() -> Tracer:
    """Return a tracer for when there is no provider; its spans go nowhere."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    return TracerProvider(ALWAYS_ON, Resource({}), shutdown_on_exit=False).get_tracer(names.SCOPE)


def _flush_events() -> None:
    flush_derived()
    flush_aggregated()


def _read(kinds: tuple[str, ...]) -> Iterator[tuple[_Series, _Amount]]:
    for row in names.METRICS:
        if row.kind in kinds and row.kind != "histogram":
            for attributes, value in instruments.observe(row):
                yield _Series(row.name, _in_order(attributes)), _Amount(value, value)
    if "histogram" in kinds:
        for row, latency in instruments.latencies():
            histogram = latency.snapshot()
            yield _Series(row.name, _in_order(latency.attributes)), _Amount(histogram.count, histogram.total)


def _in_order(attributes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(attributes.items()))


def _row(name: str) -> names.Metric:
    known = {row.name: row for row in names.METRICS}
    if name not in known:
        from difflib import get_close_matches  # noqa: PLC0415 - for those who have made a mistake

        near = get_close_matches(name, known, n=5) or sorted(known)
        raise LookupError(f"no metric is named {name!r}; there are: {', '.join(near)}")
    return known[name]


def _attribute(row: names.Metric, keyword: str) -> str:
    ending = keyword.replace("_", ".")
    for name in row.attributes:
        if f".{name}".endswith(f".{ending}"):
            return name
    raise LookupError(f"{row.name} has no attribute {keyword!r}; it has: {', '.join(row.attributes)}")


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


instruments.on_fork(_after_fork)
