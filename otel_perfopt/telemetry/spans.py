"""Spans: started with the API, attached only where somebody records.

A span must not use `Span.add_event`, which OpenTelemetry is retiring; a failure is a status and an ``error.type``.
"""

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.wrapping import label_of, plain_function, wrap_in

__all__ = ("Timed", "Traced", "attach", "detach", "end", "fail", "reset_tracer", "start", "switch", "traced", "tracer", "watch")

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger(names.SCOPE)
_tracer: Tracer | None = None
_is_on = True
_on_end: Callable[[Span], object] | None = None
_stand_in: Tracer | None = None


def tracer() -> Tracer:
    """Return the library's tracer; it follows a provider that is set later."""
    global _tracer
    if _tracer is None:
        _tracer = trace.get_tracer(names.SCOPE)  # once: a look-up reads the environment
    return _tracer


def switch(*, on: bool) -> None:
    """Make spans from now on, or none at all."""
    global _is_on
    _is_on = on


def reset_tracer() -> None:
    """Look the tracer up again at its next use; for tests that replace the provider."""
    global _tracer
    _tracer = None


def watch(on_end: Callable[[Span], object] | None, stand_in: Tracer | None) -> None:
    """Have `on_end` called with every span that ends, and spans made by `stand_in` where no provider makes any; for tests."""
    global _on_end, _stand_in
    _on_end, _stand_in = on_end, stand_in


class Traced:
    """A context manager that spans its block.

    Args:
        name: the name of the span; of low cardinality.
        attributes: its attributes.
    """

    __slots__ = ("_attributes", "_name", "_token", "span")

    def __init__(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        self._name = name
        self._attributes = attributes
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        self.span = span = self._start()
        self._token = attach(span)
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        detach(self._token, self.span, error)
        end(self.span, error)

    def _start(self) -> Span:
        return start(self._name, self._attributes)


class Timed(Traced, ABC):
    """A context manager that spans its block, and records how long it took."""

    __slots__ = ("_begin",)

    def __enter__(self) -> Span:
        span = super().__enter__()
        self._begin = time.perf_counter()
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._begin
        super().__exit__(kind, error, traceback)
        self.latency(error).record_in(seconds, self.span)

    @abstractmethod
    def latency(self, error: BaseException | None) -> Latency:
        """Return where to record how long it took, with the error that it ended with."""


def traced(name: str, *, attributes: Mapping[str, AttributeValue] | None = None) -> Callable[[F], F]:
    """Decorate a function, a coroutine function or a method with a span around each call.

    Args:
        name: the name of the span; of low cardinality.
        attributes: its attributes.

    Raises:
        TypeError: a generator function, whose calls only make a generator; `measure_performance` spans these.

    >>> @traced("parse config")
    ... def parse(text):
    ...     return text.split("=")
    >>> parse("a=1")
    ['a', '1']
    """

    def decorate(function: F) -> F:
        plain = plain_function(function)
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise TypeError(f"@traced cannot follow the generator {label_of(function)}(); use @measure_performance")
        return wrap_in(function, lambda _instance, _args: Traced(name, attributes))

    return decorate


def start(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    links: Iterable[Span] | None = None,
    begin: int | None = None,
) -> Span:
    """Start a span, without making it the current one.

    Args:
        name: the name of the span.
        attributes: its attributes.
        links: spans to link it to; it has no parent then.
        begin: when it began, in nanoseconds since 1970; now by default.
    """
    if not _is_on:
        return trace.INVALID_SPAN
    try:
        parent = None if links is None else Context()
        about = None if links is None else [Link(span.get_span_context()) for span in links]
        span = tracer().start_span(name, parent, attributes=attributes, links=about, start_time=begin)
        stand_in = _stand_in
        if stand_in is None or span.get_span_context() != trace.get_current_span(parent).get_span_context():
            return span
        # There is no provider: what came is the span of the caller, or none.
        return stand_in.start_span(name, parent, attributes=attributes, links=about, start_time=begin)
    except Exception:  # noqa: BLE001 - what samplers and processors raise is not the caller's business
        _log.debug("the span %r could not be started", name, exc_info=True)
        return trace.INVALID_SPAN


def attach(span: Span) -> Token[Context] | None:
    """Make `span` the current one, unless nobody records or passes it on; that would be most of the cost of such a span."""
    if span.is_recording() or span.get_span_context().is_valid:
        return context.attach(trace.set_span_in_context(span))
    return None


def detach(token: Token[Context] | None, span: Span, error: BaseException | None) -> None:
    """Make what was current before `attach` current again."""
    # A coroutine that is collected as garbage is closed in whatever context that happens; `span` is not current there.
    if token is not None and not (isinstance(error, GeneratorExit) and trace.get_current_span() is not span):
        context.detach(token)


def end(span: Span, error: BaseException | None = None) -> None:
    """End `span`; with an error, as failed."""
    try:
        if error is not None:
            fail(span, error)
        span.end()
    except Exception:  # noqa: BLE001 - what processors raise is not the caller's business
        _log.debug("the span %r could not be ended", span, exc_info=True)
    if (on_end := _on_end) is not None:
        on_end(span)


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed with `error`."""
    if span.is_recording():
        kind = names.error_type(error)
        span.set_attribute(names.ERROR_TYPE, kind)
        span.set_status(Status(StatusCode.ERROR, names.clean(f"{kind}: {describe(error)}")))


def describe(error: BaseException) -> str:
    """Return the text of an error, even of one whose ``__str__`` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - telemetry never raises into user code
        return "(its text cannot be read)"
