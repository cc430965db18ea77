"""Clocks and timers: the real ones, or those of a clock for tests that brings its own timers.

A clock is a function that returns monotonic seconds. One that also has a method ``after(seconds, callback)``, such as
`otel_perfopt.testing.ManualClock`, decides itself when a timer is due, so that tests need not wait.
"""

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable

from otel_perfopt.telemetry import background

__all__ = ("Clock", "after", "block", "call_later")

Clock = Callable[[], float]


def after(clock: Clock, seconds: float, callback: Callable[[], None]) -> None:
    """Call `callback` after so many seconds of `clock`, in the timer thread; it must be short and must not run user code."""
    getattr(clock, "after", background.after)(seconds, callback)


def block(clock: Clock, seconds: float, barrier: threading.Lock) -> None:
    """Block this thread until somebody releases `barrier`, or for so many seconds of `clock`, which may be infinite."""
    if not hasattr(clock, "after"):
        barrier.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
        return
    clock.after(max(0.0, seconds), lambda: _release(barrier))
    barrier.acquire()


def call_later(clock: Clock, loop: AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
    """Call `callback` on `loop`, which is the running one, after so many seconds of `clock`; return what cancels that."""
    if not hasattr(clock, "after"):
        return loop.call_later(max(0.0, seconds), callback).cancel
    wanted = [callback]
    clock.after(max(0.0, seconds), lambda: loop.is_closed() or loop.call_soon_threadsafe(lambda: [call() for call in wanted]))
    return wanted.clear


def _release(barrier: threading.Lock) -> None:
    try:
        barrier.release()
    except RuntimeError:
        pass  # whoever was blocked is free already
