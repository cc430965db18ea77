"""The worker: threads that take jobs, do them, and write what came of them together."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import SpanKind

from otel_perfopt import BatchProcessor, measure_performance

from .jobs import Job, Jobs, Result
from .rates import Rates

log = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)


class Worker:
    """Does jobs in threads, from `start` to `stop`.

    Args:
        jobs: the queue.
        rates: what foreign currencies are worth.
        threads: how many jobs are done at a time.
        patience: seconds until an idle thread looks for jobs again.
    """

    def __init__(self, jobs: Jobs, rates: Rates, *, threads: int = 8, patience: float = 0.1) -> None:
        self.jobs, self.rates = jobs, rates
        self._stopping, self._draining = threading.Event(), threading.Event()
        self._patience = patience
        self._results = BatchProcessor("results", jobs.finish, batch_size=threads, batch_timeout="5ms")
        self._lookups = ThreadPoolExecutor(threads, thread_name_prefix="lookup")
        self._threads = [threading.Thread(target=self._run, name=f"worker-{number}") for number in range(threads)]

    def start(self) -> None:
        """Begin; what a process that is gone had taken is done first."""
        if recovered := self.jobs.recover():
            log.warning("jobs of a process that is gone wait again", extra={"count": recovered})
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Wait until no job waits any more, and those that were taken are done."""
        self._draining.set()
        self._join()

    def stop(self) -> None:
        """Take no more jobs, finish those that were taken, and write what came of them."""
        self._stopping.set()
        self._join()
        self._lookups.shutdown()
        self._results.close()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                is_idle = not self._work()
            except Exception:
                log.exception("a job could not be taken, or its result not be written")  # if taken, it waits until the next start
                is_idle = True
            if is_idle and self._draining.is_set():
                return  # a job that is not done yet is another thread's, which tries it again if it fails
            if is_idle:
                self._stopping.wait(self._patience)

    def _work(self) -> bool:
        """Do one job, in the trace of whoever asked for it, until its result is written; return whether there was one."""
        with suppress_instrumentation():  # looking for work is no work, and its queries no traces; a wait for a connection is one
            job = self.jobs.take()
        if job is None:
            return False
        with tracer.start_as_current_span("process job", job.context, SpanKind.CONSUMER, {"job.attempts": job.attempts}):
            self._results.add(Result(job, self._attempt(job))).result()
        return True

    def _attempt(self, job: Job) -> float | None:
        try:
            return self._bill(job)
        except Exception as error:  # noqa: BLE001 - a job that fails, whatever the reason, stops no thread
            log.warning("job failed", extra={"job": job.number, "attempts": job.attempts, "reason": repr(error)})
            return None

    @measure_performance("bill")
    def _bill(self, job: Job) -> float:
        """Add up a bill; the rates are looked up side by side, in threads that carry the context of this one."""
        rates = self._lookups.map(self.rates.rate, job.amounts)
        return round(sum(amount * rate for amount, rate in zip(job.amounts.values(), rates, strict=True)), 2)
