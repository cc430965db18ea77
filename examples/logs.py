"""Structured logs: records of structlog and of `logging` alike, with the ids of their span, masked, and limited when they repeat.

``python examples/logs.py ecs`` shows another preset; there are json, ecs, datadog, gcp and console.
"""

import logging
import sys
from typing import Any

import structlog
from opentelemetry import trace

from otel_perfopt import LogOptions, configure, measure_performance

log = structlog.get_logger("shop")
library = logging.getLogger("some.library")
tracer = trace.get_tracer("shop")


@measure_performance("orders.pay")
def pay(order: int) -> None:
    """Pay an order, in vain."""
    library.warning("attempt %d failed", 1, extra={"order": order})
    raise ConnectionError("the bank\ndoes not answer")  # two lines of text, one line of log


def main(preset: Any = "json") -> None:
    """Handle a few orders."""
    configure(service_name="shop", exporter="none", logs=LogOptions(preset, stream=sys.stdout, repeat_limit=2))
    for order in range(5):
        with tracer.start_as_current_span("order"), structlog.contextvars.bound_contextvars(order=order):
            log.info("order received", customer={"name": "Ω", "password": "hunter2"})
            try:
                pay(order)
            except ConnectionError:
                log.exception("order failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
