"""Spans: started with the API, attached only where somebody records.

A span must not use `Span.add_event`, which OpenTelemetry is retiring; a failure is a status and an ``error.type``.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, plain_function

__all__ = ("Traced", "attach", "detach", "end", "fail", "reset_tracer", "start", "switch", "traced", "tracer")

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger(names.SCOPE)
_tracer: Tracer | None = None
_is_on = True


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
        self.span = span = start(self._name, self._attributes)
        self._token = attach(span)
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        detach(self._token, self.span, error)
        end(self.span, error)


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
        if inspect.iscoroutinefunction(plain):

            async def wrapper_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
                with Traced(name, attributes):
                    return await wrapped(*args, **kwargs)

            return cast("F", Wrapper(function, wrapper_async))

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            with Traced(name, attributes):
                return wrapped(*args, **kwargs)

        return cast("F", Wrapper(function, wrapper))

    return decorate


def start(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> Span:
    """Start a span, without making it the current one."""
    if not _is_on:
        return trace.INVALID_SPAN
    try:
        return tracer().start_span(name, attributes=attributes)
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
