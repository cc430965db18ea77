"""Traces, metrics and events over OTLP, to a backend of a few lines: what arrives, and how much of it.

``python examples/exporting.py http://localhost:4318`` sends them to a real one.
"""

import os
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer

from otel_perfopt import cached, configure, emit, measure_performance, shutdown

received: Counter[str] = Counter()


class Backend(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP and counts bytes."""

    def do_POST(self) -> None:
        received[self.path] += len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@cached(name="prices")
def price(item: str) -> int:
    """Return the price of an item."""
    return len(item)


@measure_performance("orders.total")
def total(items: list[str]) -> int:
    """Return the price of an order."""
    emit("order.priced", {"items": len(items)})
    return sum(price(item) for item in items)


def main(endpoint: str | None = None) -> None:
    """Work a little, deliver, and tell what has arrived."""
    if endpoint is None:
        backend = HTTPServer(("127.0.0.1", 0), Backend)
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{backend.server_port}"
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"  # which port 4318 would have told
    configure(service_name="shop", exporter=endpoint)
    for _ in range(10):
        total(["apple", "pear", "apple"])
    print("everything has arrived:", shutdown())  # happens by itself at exit
    for path, size in sorted(received.items()):
        print(f"{path}: {size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
