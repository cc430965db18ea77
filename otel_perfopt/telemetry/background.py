"""What runs behind the application: one thread for all timers, and a few workers for user code.

Both start at their first use. The timer thread runs the library's own short steps only; whatever may call user code is handed
to the workers. All are daemon threads: at exit the library waits for them, but not longer than it promises.
"""

import heapq
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable

from otel_perfopt.telemetry import instruments, names

__all__ = ("NoThread", "Workers", "after", "is_used", "submit", "wait")

MAX_WORKERS = min(32, (os.cpu_count() or 1) + 4)
IDLE = 10.0  # seconds that a worker waits for its next job before it ends


class NoThread(RuntimeError):
    """No worker is there, and none can be started: the interpreter is shutting down, or the system has no thread left."""


class _Timers:
    """Runs callbacks when they are due, in one daemon thread."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._serial), callback))
            if self._thread is None:
                self._thread = _start("otel-perfopt", self._run)
            self._changed.notify()

    def is_used(self) -> bool:
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or (wait := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait if self._due else None)
                _, _, callback = heapq.heappop(self._due)
            try:
                callback()
            except NoThread:
                pass  # the process ends, and tells itself what is left, or it has other troubles than ours
            except Exception:
                logging.getLogger(names.SCOPE).exception("a timer of otel_perfopt failed")


class Workers:
    """Runs jobs in daemon threads; the executors of the standard library are joined at exit, however long their jobs take.

    Args:
        name: what the threads are called, with a number.
        limit: the most threads.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._workers = 0
        self._unfinished = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Have a thread run `job`.

        Raises:
            NoThread: there is no thread, and none can be started.
        """
        with self._changed:
            # Counted together, queued and running: a worker that is about to finish is not idle yet.
            if self._workers < min(self._unfinished + 1, self._limit) and _start(f"{self._name}-{self._workers}", self._run):
                self._workers += 1
            if not self._workers:
                raise NoThread("no thread can be started")  # the job would wait for ever, and somebody for it
            self._unfinished += 1
        self._jobs.put(job)

    def wait(self, seconds: float) -> bool:
        """Wait until every job is done, and return whether it is."""
        with self._changed:
            return self._workers == 0 or self._changed.wait_for(lambda: self._unfinished == 0, seconds)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                with self._changed:
                    if self._unfinished < self._workers:  # without this one, there still is a thread for each job
                        self._workers -= 1
                        return
                continue
            try:
                job()
            except BaseException:
                # An exit that a job asks for must not end a worker in silence either.
                logging.getLogger(names.SCOPE).exception("a background job of otel_perfopt failed")
            del job  # it would be kept alive until the next one
            with self._changed:
                self._unfinished -= 1
                self._changed.notify_all()


_timers = _Timers()
_workers = Workers("otel-perfopt", MAX_WORKERS)


def after(seconds: float, callback: Callable[[], None]) -> None:
    """Call `callback` in the timer thread after `seconds`; it must be short and must not run user code."""
    _timers.after(seconds, callback)


def submit(job: Callable[[], object]) -> None:
    """Run `job` in a worker thread. What the process has not come to when it exits is left undone.

    Raises:
        RuntimeError: there is no worker, and none can be started.
    """
    _workers.submit(job)


def wait(seconds: float) -> bool:
    """Wait until every job is done, and return whether it is."""
    return _workers.wait(seconds)


def is_used() -> bool:
    """Whether anything has been left to be done later in this process."""
    return _timers.is_used()


def _start(name: str, run: Callable[[], None]) -> threading.Thread | None:
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down, or the system has no thread left
        return None
    return thread


def _after_fork() -> None:
    """Threads do not survive a fork; what the parent's were to do is the parent's."""
    global _timers, _workers
    _timers, _workers = _Timers(), Workers("otel-perfopt", MAX_WORKERS)


instruments.on_fork(_after_fork)
