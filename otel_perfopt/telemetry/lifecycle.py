"""The end of a process: what is still collected here is told, then the providers that `configure` made are shut down.

The first must come before any provider's own shutdown, whichever was there first. `atexit` runs the last handler first, so
ours is registered when the main thread ends, which is after everything that the application has registered, and runs when
all threads have ended. Everything together takes `LIMIT` seconds at most, whatever hangs.
"""

import atexit
import logging
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from opentelemetry import _logs, metrics, trace

from otel_perfopt.telemetry import background, instruments, names, outages
from otel_perfopt.telemetry.aggregate import flush_aggregated
from otel_perfopt.telemetry.derived import flush_derived

__all__ = ("LIMIT", "before_exit", "finish", "flush", "get_ready", "hand_over_regularly", "own")

LIMIT = 5.0
"""Seconds that the end of a process may take."""

_AT_EXIT = 4.5  # of these, for us; the rest is for the interpreter
_DRAIN = 2.5  # of these, for work that still waits, before anything is told
_FLUSH = 2.0  # of these, for what is told first; a subscriber may hang
_REPLAY = 0.7  # of what is left then, the part for latencies; the export comes after them
_GIVE_UP = 0.5  # before their end exporters are told to give up, so that no call is under way when the interpreter goes
_HELPERS = 4
_HAND_OVER_EVERY = 5.0
_CAN_START_LATE = not (3, 12) <= sys.version_info < (3, 12, 2)  # those start no thread any more once the main thread has ended

Job = Callable[[], object]
_drains: list[Callable[[float], object]] = []


def before_exit(drain: Callable[[float], object]) -> None:
    """Have `drain` called when the process ends and its threads have ended, with the seconds that it may take."""
    _drains.append(drain)


class _Helpers:
    """Threads that can be waited for no longer than one wants to; made in time, because at exit none can be started."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._count = 0

    def start(self) -> None:
        try:
            while self._count < _HELPERS:
                threading.Thread(target=self._run, name="otel-perfopt-exit", daemon=True).start()
                self._count += 1
        except RuntimeError:  # too late
            pass

    def run(self, jobs: Sequence[Job]) -> list[threading.Event]:
        """Begin all jobs at once, and return what tells the end of each."""
        self.start()
        ends = []
        for job in jobs:
            end = threading.Event()
            ends.append(end)
            if self._count:
                self._jobs.put(lambda job=job, end=end: _do(job, end))  # type: ignore[misc]
            else:
                _do(job, end)
        return ends

    def _run(self) -> None:
        while True:
            self._jobs.get()()


def _do(job: Job, end: threading.Event) -> None:
    try:
        job()
    except BaseException:
        logging.getLogger(names.SCOPE).debug("a provider could not be shut down", exc_info=True)
    finally:
        end.set()


def _wait(ends: Sequence[threading.Event], deadline: float) -> bool:
    return all(end.wait(max(0.0, deadline - time.monotonic())) for end in ends)


_helpers = _Helpers()
_owned: "list[_Owned]" = []
_left = _AT_EXIT
_is_handing_over = False


class _Owned(NamedTuple):
    provider: Any
    resume: Job
    give_up: Job


def get_ready() -> None:
    """Start now what cannot be started at exit, on the Pythons that start no thread then; whoever may hang at exit calls this."""
    if not _CAN_START_LATE:
        _helpers.start()


def own(provider: Any, *, resume: Job, give_up: Job) -> None:
    """Shut `provider` down at exit.

    Args:
        provider: one with a ``shutdown`` method, and without an exit handler of its own.
        resume: called before; makes its exporters try once more, if they have paused after failures.
        give_up: called shortly before the time is over; makes the shutdown end soon.
    """
    if not _owned:
        atexit.unregister(_finish_at_exit)
        atexit.register(_finish_at_exit)
        if not _CAN_START_LATE:
            _helpers.start()
    _owned.append(_Owned(provider, resume, give_up))


def hand_over_regularly() -> None:
    """Give the meter provider its latencies every few seconds, so that few are left for the exit; once."""
    global _is_handing_over
    if not _is_handing_over:
        _is_handing_over = True
        background.after(_HAND_OVER_EVERY, _hand_over)


def _hand_over() -> None:
    background.after(_HAND_OVER_EVERY, _hand_over)
    background.submit(partial(instruments.hand_over, _HAND_OVER_EVERY / 2))


def flush() -> None:
    """Emit what has come in the intervals that run, and what was counted since it was last told."""
    flush_derived()
    flush_aggregated()


def finish(timeout: float, *, others: bool = True) -> bool:
    """Deliver everything and shut down the providers that we own; return whether all has arrived in time.

    Args:
        timeout: seconds for everything together.
        others: whether to have the global providers that we do not own deliver what they hold.
    """
    end = time.monotonic() + timeout
    in_time = _flush_within(min(_FLUSH, timeout / 2))
    owned = _owned[:]
    _owned.clear()
    if owned:
        instruments.stop_handing_over(_REPLAY * (end - time.monotonic()))
    ours = [each.provider for each in owned]
    for each in owned:
        each.resume()
    jobs = [provider.shutdown for provider in ours]
    ends = _helpers.run([*jobs, *_flushes_of_others(ours)] if others else jobs)
    is_over = _wait(ends, end - min(_GIVE_UP, timeout / 10))
    if not is_over:
        for each in owned:
            each.give_up()
        _wait(ends, end)
    instruments.stop_handing_over(math.inf)  # to others this process may go on
    return is_over and in_time and not outages.is_on()


def _flush_within(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    background.wait(seconds / 2)  # for what the workers are just emitting
    return _wait(_helpers.run([flush]), deadline)


def _flushes_of_others(ours: Sequence[Any]) -> list[Job]:
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    others = [provider for provider in providers if not any(provider is other for other in ours)]
    return [provider.force_flush for provider in others if hasattr(provider, "force_flush")]


def _when_main_thread_ends() -> None:
    """Find out how this process will end; threads other than the main one may still be at work."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        # It joins the threads that are no daemons, and then ends without a word to `atexit`; so this one is joined, too.
        try:
            threading.Thread(target=_finish_last, name="otel-perfopt-last", daemon=False).start()
        except RuntimeError:
            finish(_AT_EXIT)
        return
    if _owned or background.is_used():
        _helpers.start()
    atexit.register(_flush_at_exit)


def _finish_last() -> None:
    """Wait until all other threads that are no daemons have ended, and finish."""
    known = {threading.main_thread(), threading.current_thread()}
    while others := [thread for thread in threading.enumerate() if not thread.daemon and thread not in known]:
        for thread in others:
            thread.join()
    start = time.monotonic()
    _drain()
    finish(_AT_EXIT - (time.monotonic() - start))


def _flush_at_exit() -> None:
    """Tell what is left while every provider still listens."""
    global _left
    start = time.monotonic()
    _drain()
    _flush_within(min(_FLUSH, (_AT_EXIT - (time.monotonic() - start)) / 2))
    _left = _AT_EXIT - (time.monotonic() - start)


def _drain() -> None:
    _wait(_helpers.run([partial(drain, _DRAIN - 0.2) for drain in _drains]), time.monotonic() + _DRAIN)


def _finish_at_exit() -> None:
    if _owned:
        finish(_left, others=False)


def _after_fork() -> None:
    global _helpers, _is_handing_over
    _helpers = _Helpers()
    if _owned and not _CAN_START_LATE:
        _helpers.start()
    if _is_handing_over:
        _is_handing_over = False
        hand_over_regularly()


instruments.on_fork(_after_fork)
try:
    threading._register_atexit(_when_main_thread_ends)  # type: ignore[attr-defined]
except (AttributeError, RuntimeError):  # private, and refused when the interpreter is shutting down
    atexit.register(_flush_at_exit)
