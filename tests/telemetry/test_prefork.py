"""Processes that fork: each reports its own figures, under its own identity, and delivers what it has when it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.backends.processes import environment, run
from tests.backends.receivers import Backend, GrpcBackend, HttpBackend

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PARENT_AND_CHILDREN = """
import json, multiprocessing, os, sys
from opentelemetry import _logs, metrics, trace
from otel_perfopt import emit, emit_aggregated, get_performance_report, measure_performance
from otel_perfopt.telemetry.configure import configure

how = sys.argv[1]
total = measure_performance("orders.total", sum)

def work(calls):
    for _ in range(calls):
        total([1])
    emit("order.paid")
    emit_aggregated("cart.changed", {"component": "shop"})
    assert get_performance_report().operations["orders.total"].count == calls

def child(calls):
    configure()  # a spawned one has not been configured; to the others it makes no difference
    work(calls)

if __name__ == "__main__":
    configure()
    work(5)
    if "after-export" in sys.argv:
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()):
            provider.force_flush()
    if how == "os.fork":
        for calls in (10, 20):
            if not (pid := os.fork()):
                child(calls)
                sys.exit()
            assert os.waitpid(pid, 0)[1] == 0
    else:
        context = multiprocessing.get_context(how)
        for calls in (10, 20):
            process = context.Process(target=child, args=(calls,))
            process.start()
            process.join()
            assert process.exitcode == 0
    print(os.getpid())
"""
STARTS = ("os.fork", "fork", "spawn", "forkserver")


def by_process(backend: Backend) -> dict[Any, Counter[str]]:
    """How often each thing has arrived, by process."""
    found: dict[Any, Counter[str]] = {}
    for span in backend.spans:
        found.setdefault(identity(span), Counter())[span.name] += 1
    for record in backend.records:
        found.setdefault(identity(record), Counter())[record.event] += 1
    for point in backend.points:
        if point.metric == "perfopt.operation.duration":
            found.setdefault(identity(point), Counter())["duration"] = int(point.value)  # cumulative: the last one counts
    return found


def identity(arrived: Any) -> tuple[int, str]:
    """Which process something comes from."""
    return arrived.resource["process.pid"], arrived.resource["service.instance.id"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before-export", "after-export"])
@pytest.mark.parametrize("protocol", [HttpBackend, GrpcBackend])
@pytest.mark.parametrize("how", STARTS)
def test_each_process_exports_its_own(how: str, protocol: type[Any], moment: str, tmp_path: Path) -> None:
    """A child of a configured parent sends its own spans, figures and events, and nothing of the parent's."""
    script = tmp_path / "fork.py"
    script.write_text(PARENT_AND_CHILDREN)
    with protocol() as backend:
        ended = run(script, how, moment, backend=backend)
    assert not ended.errors
    found = by_process(backend)
    assert len({pid for pid, _ in found}) == len({instance for _, instance in found}) == len(found) == 3
    for counts, calls in zip(sorted(found.values(), key=lambda counts: counts["duration"]), (5, 10, 20), strict=True):
        expected = {"orders.total": calls, "duration": calls, "order.paid": 1, "cart.changed": 1, "performance.metric": 1}
        assert dict(counts) == expected


@pytest.mark.parametrize("how", STARTS)
def test_children_deliver_to_providers_of_the_application(how: str, tmp_path: Path) -> None:
    """Multiprocessing ends a child without exit handlers; what its providers hold is delivered all the same."""
    script = tmp_path / "fork.py"
    providers = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def configure():
    if type(trace.get_tracer_provider()) is not TracerProvider:
        trace.set_tracer_provider(TracerProvider())
        trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
"""
    script.write_text(PARENT_AND_CHILDREN.replace("from otel_perfopt.telemetry.configure import configure\n", providers))
    with HttpBackend() as backend:
        run(script, how, backend=backend)
    assert len([span for span in backend.spans if span.name == "orders.total"]) == 35


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [HttpBackend, GrpcBackend])
def test_a_fork_in_the_middle_of_everything(protocol: type[Any]) -> None:
    """Forks while the parent's threads call, collect and export leave no child hanging."""
    code = """
        import os, sys, threading
        from opentelemetry import metrics
        from otel_perfopt import emit, measure_performance
        from otel_perfopt.telemetry.configure import configure, shutdown

        configure()
        total, done = measure_performance("orders.total", sum), threading.Event()

        def call():
            while not done.is_set():
                total([1])
                emit("order.paid")

        def collect():
            while not done.is_set():
                metrics.get_meter_provider().force_flush()

        threads = [threading.Thread(target=target, daemon=True) for target in (call, call, collect)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            if not (pid := os.fork()):
                total([1])
                os._exit(0 if shutdown() else 1)
            assert os.waitpid(pid, 0)[1] == 0
        done.set()
        print()
    """
    with protocol() as backend:
        run(code, backend=backend)
    found = by_process(backend)
    parent = max(found, key=lambda process: found[process]["duration"])
    assert [counts["duration"] for process, counts in found.items() if process != parent] == [1] * 20


APPLICATION = """
import json, os
from otel_perfopt import cached, emit_aggregated, get_performance_report
from otel_perfopt.telemetry.configure import configure

configure(service_name="shop")

@cached(name="squares")
def square(number):
    return number * number

square(1)  # in the worker, or in the master with --preload

def application(environ, start_response):
    square(2)
    emit_aggregated("request.done", {"component": "shop"})
    row = get_performance_report().caches["squares"]
    body = json.dumps([os.getpid(), row.hit_count, row.miss_count]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


@contextmanager
def gunicorn(folder: Path, *options: str, backend: Any) -> Iterator[str]:
    """A real gunicorn with two workers on a port of its own; stopped gracefully."""
    pytest.importorskip("gunicorn", reason="pip install gunicorn")
    (folder / "shop.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "gunicorn", "--workers=2", "--bind=127.0.0.1:0", "--no-control-socket", *options]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, "shop:application"],
            cwd=folder,
            env=environment(backend),
            stderr=log,
            stdout=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _address(folder / "log")
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert "Traceback" not in (folder / "log").read_text()


def _address(log: Path) -> str:
    """Where gunicorn says that it listens."""
    deadline = time.monotonic() + 30
    while True:
        lines = [line for line in log.read_text().splitlines() if "Listening at: " in line]
        if lines:
            return lines[0].split("Listening at: ")[1].split()[0]
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["plain", "preload"])
@pytest.mark.parametrize("protocol", [HttpBackend, GrpcBackend])
def test_gunicorn_with_two_workers(protocol: type[Any], options: list[str], tmp_path: Path) -> None:
    """Each worker's report has its own counts, which are also what arrives when the workers end."""
    replies: dict[int, list[int]] = {}
    requests: Counter[int] = Counter()
    with protocol() as backend, gunicorn(tmp_path, *options, backend=backend) as address:
        deadline = time.monotonic() + 30
        while len(requests) < 2 or min(requests.values()) < 3:
            assert time.monotonic() < deadline
            with urllib.request.urlopen(address, timeout=10) as reply:
                pid, *counts = json.load(reply)
            replies[pid] = counts
            requests[pid] += 1
    misses = 1 if options else 2  # with --preload, the first look-up was the master's; its value is still there
    assert replies == {pid: [count - 1, misses] for pid, count in requests.items()}
    found = by_process(backend)
    assert {pid for pid, _ in found} >= set(requests)
    for pid, count in requests.items():
        arrived = {
            point.attributes["perfopt.cache.result"]: point.value
            for point in backend.points
            if point.metric == "perfopt.cache.requests" and point.resource["process.pid"] == pid
        }
        assert arrived == {"hit": count - 1, "stale": 0, "miss": misses}
        events = [r for r in backend.records if r.event == "request.done" and r.resource["process.pid"] == pid]
        assert sum(event.attributes["count"] for event in events) == count
