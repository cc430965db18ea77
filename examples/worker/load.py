"""Loads a worker with 400 bills: once as it is, once with a cache that keeps nothing. Ends by itself; no network is used.

Each worker is a process of its own, and so is its report.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from worker.bank import Bank
from worker.bills import order
from worker.jobs import Jobs
from worker.rates import Rates
from worker.service import Worker
from worker.telemetry import exported

from otel_perfopt import get_performance_report

COUNT = 400  # or what the command line says


def main(count: int = COUNT) -> None:
    print(f"{count} bills; the time that one takes, in milliseconds:\n")
    print(f"{'':18}{'p50':>8}{'p95':>8}{'p99':>8}{'bills/s':>9}{'tried':>8}   bank asked")
    for title, entries in {"with the cache": "1000", "without it": "0"}.items():
        found = in_a_process(count, {"WORKER_CACHE_ENTRIES": entries})
        latencies = "".join(f"{1000 * found[key]:8.1f}" for key in ("p50", "p95", "p99"))
        print(f"{title:18}{latencies}{count / found['seconds']:9.0f}{found['tried']:8}{found['asked']:7} times", flush=True)


def in_a_process(count: int, environment: dict[str, str]) -> dict[str, Any]:
    """Measure in a process with this environment: the cache is made when its module is imported."""
    command = [sys.executable, __file__, "measure", str(count)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(count: int) -> dict[str, Any]:
    """Return how long a bill took, how long all took, how often one was tried, and how often the bank was asked."""
    with exported("worker"), tempfile.TemporaryDirectory() as folder, closing(Jobs(Path(folder) / "jobs.db")) as jobs:
        order(jobs, count)
        bank = Bank()
        worker = Worker(jobs, Rates(bank.ask))
        begin = time.perf_counter()
        worker.start()
        worker.drain()
        seconds = time.perf_counter() - begin
        worker.stop()
    bill = get_performance_report().operations["bill"]
    percentiles = {"p50": bill.p50_duration, "p95": bill.p95_duration, "p99": bill.p99_duration}
    return {**percentiles, "seconds": seconds, "tried": bill.count, "asked": bank.asked}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", count]:
            print(json.dumps(measure(int(count))))
        case counts:
            main(*map(int, counts))
