"""Tiers that are away are tried again one after the other: many that hang must not take all the workers, which others need."""

import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import Protocol

from otel_perfopt.telemetry import background, instruments
from otel_perfopt.telemetry.background import NoThread

__all__ = ("recover_soon",)


class _Recoverable(Protocol):
    def recover(self) -> None: ...
    def try_later(self) -> None: ...


def recover_soon(reference: "weakref.ref[_Recoverable]") -> None:
    """Have a worker recover this one, unless it is gone; for the timer thread, which must not wait for a tier."""
    _waiting.append(reference)
    try:
        background.submit(_recover_all)
    except NoThread:
        with suppress(ValueError):  # another worker may have come to it
            _waiting.remove(reference)
        guard = reference()
        if guard is not None:
            guard.try_later()


def _recover_all() -> None:
    while _waiting and _turn.acquire(blocking=False):
        try:
            guard = _waiting.popleft()()
            if guard is not None:
                guard.recover()
            del guard
        except IndexError:
            pass  # another worker was faster
        finally:
            _turn.release()


def _after_fork() -> None:
    global _turn
    _turn = threading.Lock()
    _waiting.clear()


_waiting: "deque[weakref.ref[_Recoverable]]" = deque()
_turn = threading.Lock()
instruments.on_fork(_after_fork)
