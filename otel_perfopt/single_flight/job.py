"""Jobs: synchronous loads that a coroutine wants, run by the background workers of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any

from otel_perfopt._core.flight import Aborted, Failed, Loaded, Outcome
from otel_perfopt.telemetry import background, instruments

__all__ = ("Job",)


MAX_LENT = 64

_here = threading.local()
_places = threading.Semaphore(MAX_LENT)


class Job:
    """A function to run once, in a worker, or in a thread lent to it by a caller that waits and would wait for a worker in vain.

    Args:
        function: what to run.

    Attributes:
        context: the context to run it in; a copy of the creator's, until somebody knows a better one.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.context = copy_context()
        self._function = function
        self._turn = threading.Lock()
        # Tells that it is over, and never fails: an asyncio future refuses StopIteration, and its waiter would hang.
        self._done: Future[None] = Future()
        self._outcome: Outcome = Aborted()

    async def outcome(self) -> Outcome:
        """Have a worker run the job, and return what came of it; to be called once."""
        self.start()
        await asyncio.wrap_future(self._done)
        # Some frames of an error's traceback know this job, which must not know the error.
        outcome, self._outcome = self._outcome, Aborted()
        return outcome

    def start(self) -> None:
        """Have a worker run the job."""
        if getattr(_here, "runs_a_job", False):
            # This code runs inside a job: the workers may all wait like that, for each other's jobs.
            self.lend_thread()
        else:
            background.submit(self._run)

    def lend_thread(self, *, limited: bool = False) -> None:
        """Start a thread for the job if no worker has begun it; for callers that block a thread until it is done.

        All workers may be waiting, for this very job for instance. Whoever waits is not at work, so that the threads at
        work are no more than before.

        Args:
            limited: whether the caller will not wait for ever. What it leaves behind may hang, so that there are at most
                `MAX_LENT` such threads; beyond that, the job waits for a worker or for one of these threads to end.
        """
        if self._turn.locked():
            return
        places = _places if limited else None
        if places is not None and not places.acquire(blocking=False):
            return
        run = partial(self._run_in, places)
        try:
            threading.Thread(target=run, name="otel-perfopt-lent", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            run()

    def _run_in(self, places: threading.Semaphore | None) -> None:
        try:
            self._run()
        finally:
            if places is not None:
                places.release()

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False) or not self._done.set_running_or_notify_cancel():
            return  # it runs already, has run, or is not wanted any more
        before, _here.runs_a_job = getattr(_here, "runs_a_job", False), True
        self._outcome = _outcome_of(partial(self.context.run, self._function))
        _here.runs_a_job = before
        self._done.set_result(None)


def _outcome_of(function: Callable[[], Any]) -> Outcome:
    try:
        return Loaded(function())
    except Exception as error:  # noqa: BLE001 - it is the loader's, and goes to those who wait
        return Failed(error, error.__traceback__)
    except BaseException as error:  # noqa: BLE001 - an exit asked for by a loader must not end a worker in silence
        return Aborted(error)


def _after_fork() -> None:
    global _places
    _places = threading.Semaphore(MAX_LENT)


instruments.on_fork(_after_fork)
