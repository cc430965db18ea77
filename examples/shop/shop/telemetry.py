"""Where telemetry goes: this library's and that of the ordinary instrumentations arrive at the same providers."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

from otel_perfopt import configure, shutdown

LOGS = cast('Literal["json", "ecs", "datadog", "gcp", "console"]', os.environ.get("SHOP_LOGS", "json"))
"""How logs are written, to stderr."""


@contextmanager
def exported(service_name: str) -> Iterator[None]:
    """Export while the block runs; the worker process of a server is the place for it."""
    configure(service_name=service_name, exporter=_exporter(), logs=LOGS)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes a line for each request, which has a span already
    SQLite3Instrumentor().instrument()  # what is connected from now on
    try:
        yield
    finally:
        SQLite3Instrumentor().uninstrument()
        shutdown()


def observe_requests(app: FastAPI) -> None:
    """Make a span of each request; before `exported` or after, for a tracer follows the provider that is set."""
    FastAPIInstrumentor.instrument_app(app, excluded_urls="performance", exclude_spans=["receive", "send"])


def _exporter() -> str | None:
    """Do as the OTEL_* variables say; without any, keep everything here, where the report is."""
    says_where = any(name.startswith("OTEL_") and name.endswith(("_ENDPOINT", "_EXPORTER")) for name in os.environ)
    return None if says_where else "none"
