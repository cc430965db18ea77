"""What user calls notice of a backend that is dead: the 99th percentile of their durations, beside that without a backend.

Each contestant is a process of its own, because a process has only one set of global providers; it runs a slice when it is
asked to. A call computes a little and waits for 4 ms, as calls of a service do, and has a span, a duration and an event. Of
calls that only compute, and keep thousands of spans waiting, the garbage collection of these would be most of the figure.
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn

__all__ = ("BENCHMARKS",)

CALLS = 300
SERVICE = """
import logging, sys, time
from otel_perfopt import emit, measure_performance
from otel_perfopt.telemetry.configure import configure

logging.disable()
configure(service_name="benchmark", exporter=sys.argv[1] if len(sys.argv) > 1 else None)

@measure_performance("benchmark")
def call():
    emit("benchmark.called")
    time.sleep(0.004)
    return sum(range(20_000))

for count in sys.stdin:
    seconds = []
    for _ in range(int(count)):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    print(seconds[int(len(seconds) * 0.99)], flush=True)
"""


def service(exporter: str) -> Build:
    """Return the slice of a service that exports there."""

    def build(turn: Turn) -> Slice:
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        env |= {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, exporter], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(process.kill)
        count = turn.count(CALLS)

        def run() -> float:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        return run

    return build


def refusing() -> str:
    """Return an endpoint where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


_listening: list[socket.socket] = []


def hanging() -> str:
    """Return an endpoint that takes connections and never answers."""
    _listening.append(socket.create_server(("127.0.0.1", 0), backlog=100))
    return f"http://127.0.0.1:{_listening[-1].getsockname()[1]}"


class Overloaded(BaseHTTPRequestHandler):
    """Answers everything with 503."""

    def do_POST(self) -> None:
        """Refuse."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def overloaded() -> str:
    """Return an endpoint that answers 503."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Overloaded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def benchmark(name: str, title: str, endpoint: Callable[[], str]) -> Benchmark:
    def dead(turn: Turn) -> Slice:
        return service(endpoint())(turn)

    contestants = (Contestant("otel_perfopt", dead), Contestant("otel_perfopt without a backend", service("none")))
    return Benchmark(name, title, contestants, limit=1.05, collect_garbage=True, slices=7)


BENCHMARKS = (
    benchmark("export-hangs", "p99 of calls while the backend hangs", hanging),
    benchmark("export-refuses", "the same while it refuses connections", refusing),
    benchmark("export-overloaded", "the same while it answers 503", overloaded),
)
