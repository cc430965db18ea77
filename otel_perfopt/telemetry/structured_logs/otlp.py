"""Records as OpenTelemetry's log records, each once.

A record that another handler or processor hands to OpenTelemetry already is left to it. What is logged while telemetry is
exported, and by what exports it, is never exported: each export would be the reason for the next one.
"""

import logging
import sys
from functools import lru_cache
from typing import Any

from opentelemetry import context
from opentelemetry._logs import Logger, SeverityNumber, get_logger

from otel_perfopt.telemetry.structured_logs.record import Record, severity_number

__all__ = ("Outlet",)

_EXPORTERS = ("grpc", "opentelemetry")  # these also log in threads of their own, where nothing tells that it is an export
_SUPPRESSED = [
    key
    for name in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
    if (key := getattr(context, name, None)) is not None
]


class Outlet:
    """Hands records to the global logger provider, under the name of their logger; does nothing while there is none."""

    def __init__(self) -> None:
        self._logger = lru_cache(1000)(get_logger)

    def emit(self, record: Record, *, is_from_structlog: bool) -> None:
        """Emit a record, unless it is or would become somebody else's."""
        if not (is_exporting() or _comes_from_exporter(record.logger) or is_handed_over(record.logger, is_from_structlog)):
            _emit(self._logger(record.logger), record)


def is_exporting() -> bool:
    """Whether what is going on is an export."""
    return any(context.get_value(key) for key in _SUPPRESSED)


def is_handed_over(logger: str, is_from_structlog: bool) -> bool:  # noqa: FBT001 - a fact, not an option
    """Whether OpenTelemetry's own instrumentation hands over the records of a logger."""
    current: logging.Logger | None = logging.getLogger(logger)
    while current is not None:
        if any(_is_opentelemetrys(handler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    structlog = sys.modules.get("structlog")
    if structlog is None or not is_from_structlog:
        return False
    return any(_is_opentelemetrys(processor) for processor in structlog.get_config()["processors"])


def _is_opentelemetrys(part: object) -> bool:
    return type(part).__module__.startswith("opentelemetry.")


def _comes_from_exporter(logger: str) -> bool:
    return logger.split(".", 1)[0] in _EXPORTERS


def _emit(logger: Logger, record: Record) -> None:
    severity = SeverityNumber(severity_number(record.level))
    is_wanted = getattr(logger, "enabled", None)  # older versions of the API have no such question
    if is_wanted is not None and not is_wanted(severity_number=severity):
        return
    logger.emit(
        timestamp=int(record.time * 1e9),
        severity_number=severity,
        severity_text=record.level_name,
        body=record.message,
        attributes={**record.attributes, **_about(record)},
    )


def _about(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if (place := record.place) is not None:
        found |= {"code.file.path": place.file, "code.line.number": place.line, "code.function.name": place.function}
    if (failure := record.failure) is not None:
        found |= {"exception.type": failure.type, "exception.message": failure.message, "exception.stacktrace": failure.stack}
    return found
