"""Help for the tests of lazy values, beside that for caches."""

import asyncio
from typing import Any

from tests.cache.support import until, until_async


def waiting(lazy: Any) -> int:
    """How many callers wait for a load that another caller has started."""
    with lazy._state._lock:
        return int(lazy._state._flights.waiting)


def until_waiting(lazy: Any, callers: int) -> None:
    """Wait until so many callers wait."""
    until(lambda: waiting(lazy) == callers)


async def until_waiting_async(lazy: Any, callers: int) -> None:
    """Do the same on a loop."""
    await until_async(lambda: waiting(lazy) == callers)


def in_progress(lazy: Any) -> int:
    """How many loads have not ended."""
    with lazy._state._lock:
        return len(lazy._state._flights)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, and wait until it is over."""
    task.cancel()
    await asyncio.wait([task])
