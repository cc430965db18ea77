"""Exporting and logging what the demo does, where somebody wants it."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from otel_perfopt import LogOptions, configure, shutdown
from otel_perfopt.telemetry.structured_logs.options import PresetName

__all__ = ("exporting", "request", "say")

SERVICE = "otel-perfopt-demo"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_log = logging.getLogger("otel_perfopt.demo")
_tracer = trace.get_tracer("otel_perfopt.demo")


@contextmanager
def exporting(url: str | None, logs: PresetName | None = None) -> Iterator[None]:
    """Export the traces, metrics, events and logs of the block, and deliver the last of them before it ends.

    Args:
        url: an OTLP endpoint; None for the one of ``OTEL_EXPORTER_OTLP_ENDPOINT``, and for no export without it.
        logs: the preset of the lines on standard error; None for no structured logs.

    Raises:
        ConfigurationError: the endpoint, or one of the ``OTEL_*`` variables, cannot work.
    """
    where = url or os.environ.get(ENDPOINT)
    if not where and logs is None:
        yield
        return
    configure(
        service_name=None if os.environ.get("OTEL_SERVICE_NAME") else SERVICE,
        exporter=url if where else "none",
        logs=None if logs is None else LogOptions(logs, stream=sys.stderr),
    )
    try:
        yield
    finally:
        delivered = shutdown()
        if where:
            say(
                f"exported to {where}" if delivered else f"not everything was taken in time by {where}",
                as_record=logs is not None,
            )


def say(text: str, *, as_record: bool, level: int = logging.INFO) -> None:
    """Tell on standard error what is not of the report; as a record of the log, if that is there."""
    if as_record:
        _log.log(level, "%s", text)
    else:
        sys.stderr.write(f"{text}\n")


@contextmanager
def request(path: str) -> Iterator[None]:
    """Span a request for a file, and log that it was answered."""
    about = {"file.path": path.encode(errors="backslashreplace").decode()}
    with _tracer.start_as_current_span("request", attributes=about):
        started = time.perf_counter()
        yield
        _log.info("request answered", extra={**about, "duration": time.perf_counter() - started})
