"""Exporting what the demo does, where somebody wants it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from otel_perfopt import configure, shutdown

__all__ = ("exporting",)

SERVICE = "otel-perfopt-demo"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@contextmanager
def exporting(url: str | None) -> Iterator[None]:
    """Export the traces, metrics and events of the block, and deliver the last of them before it ends.

    Args:
        url: an OTLP endpoint; None for the one of ``OTEL_EXPORTER_OTLP_ENDPOINT``, and for no export without it.

    Raises:
        ConfigurationError: the endpoint, or one of the ``OTEL_*`` variables, cannot work.
    """
    if url is None and not os.environ.get(ENDPOINT):
        yield
        return
    configure(service_name=None if os.environ.get("OTEL_SERVICE_NAME") else SERVICE, exporter=url)
    try:
        yield
    finally:
        delivered = shutdown()
        where = url or os.environ[ENDPOINT]
        sys.stderr.write(f"exported to {where}\n" if delivered else f"not everything was taken in time by {where}\n")
