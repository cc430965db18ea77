"""The frames of another thread are not to be read: one that is just being cleared crashes the interpreter (CPython 3.11)."""

import sys
import threading
from typing import Any

import pytest

from otel_perfopt.errors import PoolTimeout
from otel_perfopt.pool import ResourcePool
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, spawn


def test_who_holds_is_told_without_looking_into_other_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A timeout and the report of a leak know where the resource was acquired, by what the lease has noted itself."""
    monkeypatch.delattr(sys, "_current_frames")
    clock, held, done = ManualClock(), threading.Event(), threading.Event()
    pool: ResourcePool[Any] = ResourcePool("foreign frames", object, max_size=1, leak_after=5.0, clock=clock)

    def hold() -> None:
        with pool.lease():
            held.set()
            done.wait(TIMEOUT)

    holder = spawn(hold)
    assert held.wait(TIMEOUT)
    with pytest.raises(PoolTimeout, match=r"test_other_threads\.py:\d+ in .*hold") as timeout:
        pool.acquire(timeout=0)
    (place,) = timeout.value.context["holders"][0]["stack"]
    assert "hold" in place
    clock.advance(10.0)
    assert pool.stats().leaks == 1
    done.set()
    holder.result(TIMEOUT)
    assert pool.close()
