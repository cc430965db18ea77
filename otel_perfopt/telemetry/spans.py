"""Spans: started with the API, attached only where somebody records.

A span must not use `Span.add_event`, which OpenTelemetry is retiring; a failure is a status and an ``error.type``.
"""

import inspect
from collections.abc import Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar, cast

import wrapt
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from otel_perfopt.telemetry import names

__all__ = ("Traced", "fail", "reset_tracer", "traced", "tracer")

F = TypeVar("F", bound=Callable[..., Any])

_tracer: Tracer | None = None


def tracer() -> Tracer:
    """Return the library's tracer; it follows a provider that is set later."""
    global _tracer
    if _tracer is None:
        _tracer = trace.get_tracer(names.SCOPE)  # once: a look-up reads the environment
    return _tracer


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
        self.span = span = tracer().start_span(self._name, attributes=self._attributes)
        # Without an SDK there is nothing to attach, which is most of the cost of a span that nobody records.
        if span.is_recording() or span.get_span_context().is_valid:
            self._token = context.attach(trace.set_span_in_context(span))
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            fail(self.span, error)
        self.span.end()
        if self._token is not None:
            context.detach(self._token)


def traced(name: str, *, attributes: Mapping[str, AttributeValue] | None = None) -> Callable[[F], F]:
    """Decorate a function, a coroutine function or a method with a span around each call.

    Args:
        name: the name of the span; of low cardinality.
        attributes: its attributes.

    >>> @traced("parse config")
    ... def parse(text):
    ...     return text.split("=")
    >>> parse("a=1")
    ['a', '1']
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            async def wrapper_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
                with Traced(name, attributes):
                    return await wrapped(*args, **kwargs)

            return cast("F", wrapt.FunctionWrapper(function, wrapper_async))

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            with Traced(name, attributes):
                return wrapped(*args, **kwargs)

        return cast("F", wrapt.FunctionWrapper(function, wrapper))

    return decorate


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed with `error`."""
    if span.is_recording():
        kind = names.error_type(error)
        span.set_attribute(names.ERROR_TYPE, kind)
        span.set_status(Status(StatusCode.ERROR, f"{kind}: {describe(error)}"))


def describe(error: BaseException) -> str:
    """Return the text of an error, even of one whose ``__str__`` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - telemetry never raises into user code
        return "(its text cannot be read)"
