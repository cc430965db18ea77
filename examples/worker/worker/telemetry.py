"""Where telemetry goes: this library's and that of the ordinary instrumentations arrive at the same providers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from otel_perfopt import configure, shutdown

LOGS = cast('Literal["json", "ecs", "datadog", "gcp", "console"]', os.environ.get("WORKER_LOGS", "json"))
"""How logs are written, to stderr."""


@contextmanager
def exported(service_name: str) -> Iterator[None]:
    """Export while the block runs."""
    configure(service_name=service_name, exporter=_exporter(), logs=LOGS)
    SQLite3Instrumentor().instrument()  # a span for each query
    ThreadingInstrumentor().instrument()  # threads and executors know in which trace they were given their work
    try:
        yield
    finally:
        ThreadingInstrumentor().uninstrument()
        SQLite3Instrumentor().uninstrument()
        shutdown()


def _exporter() -> str | None:
    """Do as the OTEL_* variables say; without any, keep everything here, where the report is."""
    says_where = any(name.startswith("OTEL_") and name.endswith(("_ENDPOINT", "_EXPORTER")) for name in os.environ)
    return None if says_where else "none"
