"""A worker that adds up 60 bills, and what the report says of it. Needs no backend, and ends by itself.

`python main.py order` puts 60 bills into the file `jobs.db`, and `python main.py serve` adds up what is there until Ctrl-C or
SIGTERM. With OTEL_EXPORTER_OTLP_ENDPOINT set, traces, metrics and logs go there.
"""

import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from worker.bank import Bank
from worker.bills import order
from worker.jobs import Jobs
from worker.rates import Rates
from worker.service import Worker
from worker.telemetry import exported

from otel_perfopt import get_performance_report


def show() -> None:
    """Do everything, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, closing(Jobs(Path(folder) / "jobs.db")) as jobs:
        order(jobs, 60)
        bank = Bank()
        worker = Worker(jobs, Rates(bank.ask))
        worker.start()
        worker.drain()
        worker.stop()
        print("jobs:", jobs.count())
    print(f"the bank was asked {bank.asked} times\n")
    print(get_performance_report())


def serve() -> None:
    """Do what is in `jobs.db` until a signal comes; what has begun is finished then."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    with closing(Jobs(Path("jobs.db"))) as jobs:
        worker = Worker(jobs, Rates(Bank().ask))
        try:
            worker.start()
            print("working, until Ctrl-C or SIGTERM", flush=True)
            while True:
                time.sleep(1.0)  # not for ever: a signal that comes just before a wait is seen after it
        except KeyboardInterrupt:
            print("stopping")
        finally:
            worker.stop()
            print("jobs:", jobs.count())


def main(command: str = "show") -> None:
    with exported("worker"):
        match command:
            case "show":
                show()
            case "serve":
                serve()
            case "order":
                with closing(Jobs(Path("jobs.db"))) as jobs:
                    order(jobs, 60)
            case _:
                sys.exit(f"{command!r} is none of show, order and serve")


if __name__ == "__main__":
    main(*sys.argv[1:])
