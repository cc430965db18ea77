"""The worker: every job is done and written once, whoever fails, and none is lost when it stops."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.instrumentation.threading", reason="uv sync --group examples")

from examples.worker.worker import bills
from examples.worker.worker.bank import RATES
from examples.worker.worker.jobs import Jobs, Result
from examples.worker.worker.rates import Rates
from examples.worker.worker.service import Worker
from otel_perfopt.testing import Captured, capture
from tests.examples.programs import Backend, run, widest

CONSUMER = 5  # the kind of a span


class FakeBank:
    """Answers at once, unless `before` waits or raises, which gets the number of the question."""

    def __init__(self, before: Callable[[int], object] = lambda _: None) -> None:
        self.questions: list[str] = []
        self._before = before

    def ask(self, currency: str) -> float:
        self.questions.append(currency)
        self._before(len(self.questions))
        return RATES[currency]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """An empty queue."""
    jobs = Jobs(tmp_path / "jobs.db")
    yield jobs
    jobs.close()


@pytest.fixture
def captured() -> Iterator[Captured]:
    """What is told during a test."""
    with capture() as told:
        yield told


def work(jobs: Jobs, bank: FakeBank) -> None:
    """Do all jobs."""
    worker = Worker(jobs, Rates(bank.ask))
    worker.start()
    worker.drain()
    worker.stop()


def totals(jobs: Jobs) -> list[float | None]:
    with jobs.connections.lease() as connection:
        return [total for (total,) in connection.execute("SELECT total FROM jobs ORDER BY number")]


def test_every_job_is_done_and_written_once(jobs: Jobs, captured: Captured) -> None:
    asked = list(bills.bills(40))
    jobs.add(asked)
    bank = FakeBank()
    work(jobs, bank)
    assert jobs.count() == {"done": 40}
    assert totals(jobs) == [round(sum(amount * RATES[currency] for currency, amount in bill.items()), 2) for bill in asked]
    assert captured.total("perfopt.batch.size", name="results") == 40
    assert captured.metric("perfopt.batch.items", name="results", error_type=None) == 40
    assert sorted(bank.questions) == sorted({currency for bill in asked for currency in bill}), "one question for each currency"


def test_a_bank_that_fails_is_asked_again(jobs: Jobs, captured: Captured) -> None:
    def fail(question: int) -> None:
        if question <= 2:
            raise ConnectionError

    jobs.add([{"EUR": 1.0}])
    work(jobs, FakeBank(fail))
    assert totals(jobs) == [1.0]
    bills = [span for span in captured.spans if span.name == "bill"]
    assert [(span.attributes or {}).get("error.type") for span in bills] == ["ConnectionError", "ConnectionError", None]


def test_a_bank_that_always_fails_is_not_asked_for_ever(jobs: Jobs) -> None:
    def fail(_: int) -> None:
        raise ConnectionError

    jobs.add([{"EUR": 1.0}])
    bank = FakeBank(fail)
    work(jobs, bank)
    assert (jobs.count(), len(bank.questions)) == ({"failed": 1}, 3)


def test_who_stops_finishes_what_was_taken_and_leaves_the_rest(jobs: Jobs) -> None:
    asked, answered = threading.Event(), threading.Event()

    def dawdle(_: int) -> None:
        asked.set()
        assert answered.wait(30)

    jobs.add([{"EUR": 1.0}] * 20)
    worker = Worker(jobs, Rates(FakeBank(dawdle).ask), threads=4)
    worker.start()
    assert asked.wait(30)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    assert worker._stopping.wait(30)
    answered.set()
    stopping.join()
    found = jobs.count()
    assert set(found) == {"done", "waiting"}
    assert sum(found.values()) == 20
    assert found["done"] <= 4, "nobody took another one"


def test_what_a_process_that_is_gone_had_taken_is_done(jobs: Jobs) -> None:
    jobs.add([{"EUR": 1.0}, {"EUR": 2.0}])
    assert jobs.take() is not None
    assert jobs.count() == {"taken": 1, "waiting": 1}
    work(jobs, FakeBank())
    assert totals(jobs) == [1.0, 2.0]


def test_a_result_that_cannot_be_written_is_made_again(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[Result]) -> list[str]:
        raise OSError("no space left")

    jobs.add([{"EUR": 1.0}, {"EUR": 2.0}])
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "finish", fail)
        work(jobs, FakeBank())
    assert jobs.count() == {"taken": 2}
    work(jobs, FakeBank())
    assert totals(jobs) == [1.0, 2.0]


def test_a_result_counts_once(jobs: Jobs) -> None:
    """Also if a job was recovered, done, and its first taker comes back."""
    jobs.add([{"EUR": 1.0}])
    job = jobs.take()
    assert job is not None
    jobs.finish([Result(job, 1.0)])
    jobs.finish([Result(job, 2.0)])
    assert totals(jobs) == [1.0]


def test_a_job_is_taken_by_one_thread(jobs: Jobs) -> None:
    jobs.add([{"EUR": 1.0}] * 24)
    everybody = threading.Barrier(8)
    taken: list[int] = []

    def take() -> None:
        everybody.wait()
        while (job := jobs.take()) is not None:
            taken.append(job.number)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 25))
    assert jobs.connections.stats().total_created <= 8


def test_main_exports_traces_that_hang_together(tmp_path: Path) -> None:
    """From who asks to who does, through a thread for each rate, to the batch that writes."""
    with Backend() as backend:
        printed = run("worker/main.py", folder=tmp_path, backend=backend)
    assert "jobs: {'done': 60}" in printed
    assert widest(printed) <= 80
    assert list(tmp_path.iterdir()) == []
    assert {span.service for span in backend.tree.values()} == {"worker"}

    orders = {span.number for span in backend.named("order bills")}
    processes = {span.number: span for span in backend.named("process job")}
    assert len(orders) == 12
    assert {span.parent for span in processes.values()} == orders
    assert {span.kind for span in processes.values()} == {CONSUMER}
    assert all(
        [above.name for above in backend.above(load)] == ["bill", "process job", "order bills"] for load in backend.named("load")
    )
    assert any(span.parent in orders for span in backend.named("acquire jobs"))

    flushes = backend.named("flush results")
    assert frozenset().union(*(flush.links for flush in flushes)) == set(processes)
    assert all(not flush.parent and any(flush.number in processes[each].links for each in flush.links) for flush in flushes)
    failures = [span for span in backend.named("load rates") if span.is_error]
    assert {span.attributes["error.type"] for span in failures} == {"ConnectionError"}
    assert len([span for span in backend.named("bill") if span.is_error]) == len(processes) - 60, "each failure is tried again"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_loses_no_job(tmp_path: Path) -> None:
    run("worker/main.py", "order", folder=tmp_path)
    printed = run("worker/main.py", "serve", folder=tmp_path, stop_after="working, until Ctrl-C or SIGTERM")
    assert "stopping" in printed
    jobs = Jobs(tmp_path / "jobs.db")
    found = jobs.count()
    jobs.close()
    assert set(found) <= {"done", "waiting"}
    assert sum(found.values()) == 60


def test_load_fits_a_terminal(tmp_path: Path) -> None:
    printed = run("worker/load.py", "60", folder=tmp_path)
    assert "with the cache" in printed
    assert "without it" in printed
    assert widest(printed) <= 80
    assert list(tmp_path.iterdir()) == []
