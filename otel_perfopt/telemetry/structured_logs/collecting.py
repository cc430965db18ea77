"""From the records of `logging`, and of structlog by way of it, to plain ones."""

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace

from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.structured_logs.plain import Plain, read
from otel_perfopt.telemetry.structured_logs.record import Failure, Place, Record

__all__ = ("EVENT", "collect", "identity_of")

EVENT = "_otel_perfopt_event"
"""The attribute of a record of `logging` that holds what structlog was given, and where."""

_OF_LOGGING = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message", "taskName", EVENT})
# Those that OpenTelemetry's instrumentation adds say again what every line says.
_OF_OTHERS = frozenset({"color_message", "otelServiceName", "otelSpanID", "otelTraceID", "otelTraceSampled"})


def collect(record: logging.LogRecord, bound: Mapping[str, Any], plain: Plain) -> Record:
    """Return a record as it is written, in the context that it was logged in.

    Args:
        record: that of `logging`.
        bound: what is bound in the context.
        plain: makes values plain.
    """
    fields, place = getattr(record, EVENT, None) or _extra(record)
    span = trace.get_current_span().get_span_context()
    attributes = plain.fields({**bound, **fields})
    if record.stack_info:
        attributes.setdefault("code.stacktrace", plain.text(record.stack_info))
    return Record(
        time=record.created,
        level=record.levelno,
        level_name=plain.text(str(record.levelname)),
        logger=plain.text(str(record.name)),
        message=plain.text(_message(record)),
        attributes=attributes,
        failure=_failure(record, plain),
        place=Place(plain.text(place.file), place.line, plain.text(place.function)),
        trace_id=span.trace_id,  # of the invalid context, which is current without a span, these are 0
        span_id=span.span_id,
        trace_flags=span.trace_flags,
    )


def identity_of(record: logging.LogRecord) -> str:
    """Return what a warning is known by: its text before the arguments are put in; of an error, all that it says."""
    if record.levelno < logging.ERROR:
        return _template(record)
    error = _error(record)
    return _message(record) if error is None else f"{_message(record)} {names.error_type(error)}: {_text_of(error)}"


def _message(record: logging.LogRecord) -> str:
    """Return the text of a record, also of one whose arguments do not fit."""
    try:
        return str.__str__(record.getMessage())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - `logging` prints a traceback for it; here the text is as good as it can be
        template = _template(record)
        return f"{template} {read(lambda: repr(record.args), 'arguments')}" if record.args else template


def _template(record: logging.LogRecord) -> str:
    return read(lambda: str(record.msg), "a message")


def _error(record: logging.LogRecord) -> BaseException | None:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) and len(record.exc_info) == 3 else None
    return error if isinstance(error, BaseException) else None


def _text_of(error: BaseException) -> str:
    return read(lambda: str(error), "an error")


def _failure(record: logging.LogRecord, plain: Plain) -> Failure | None:
    error = _error(record)
    if error is None:
        return None
    stack = read(lambda: "".join(traceback.format_exception(error)), "a traceback")
    return Failure(plain.text(names.error_type(error)), plain.text(_text_of(error)), plain.text(stack))


def _extra(record: logging.LogRecord) -> tuple[Mapping[str, Any], Place]:
    extra = {key: value for key, value in vars(record).items() if key not in _OF_LOGGING and key not in _OF_OTHERS}
    return extra, Place(str(record.pathname), record.lineno, str(record.funcName))
