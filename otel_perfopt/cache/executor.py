"""The bounded executor of the process: synchronous loads run here when a coroutine wants their value."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from otel_perfopt._core.flight import Aborted, Failed, Loaded, Outcome
from otel_perfopt.telemetry import instruments

__all__ = ("Job",)

MAX_WORKERS = min(32, (os.cpu_count() or 1) + 4)

_executor: ThreadPoolExecutor | None = None
_lock = threading.Lock()


class Job:
    """A function to run once, in a worker or in a thread that cannot wait for a worker.

    A worker that waits for a job which no worker is left to run would wait for ever; it runs that job itself instead.

    Args:
        function: what to run, with a copy of the creator's context.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._context = copy_context()
        self._turn = threading.Lock()
        # Holds an outcome, never an exception: an asyncio future refuses StopIteration, and its waiter would hang.
        self._outcome: Future[Outcome] = Future()

    async def result(self) -> Any:
        """Have a worker run the job, and return or raise what it did."""
        global _executor
        with _lock:
            if _executor is None:
                _executor = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="otel-perfopt")
            _executor.submit(self.run)
        outcome = await asyncio.wrap_future(self._outcome)
        if isinstance(outcome, Loaded):
            return outcome.value
        raise outcome.error or asyncio.CancelledError

    def run(self) -> None:
        """Run it here, unless it runs already, has run, or is not wanted any more."""
        if not self._turn.acquire(blocking=False) or not self._outcome.set_running_or_notify_cancel():
            return
        outcome: Outcome
        try:
            outcome = Loaded(self._context.run(self._function))
        except Exception as error:  # noqa: BLE001 - it is the loader's, and goes to those who wait
            outcome = Failed(error, error.__traceback__)
        except BaseException as error:  # noqa: BLE001 - an exit asked for by a loader must not end a worker in silence
            outcome = Aborted(error)
        self._outcome.set_result(outcome)


def _after_fork() -> None:
    global _executor, _lock
    _executor, _lock = None, threading.Lock()


instruments.on_fork(_after_fork)
