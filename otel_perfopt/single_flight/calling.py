"""Calling a loader: in the caller's thread, on its loop, or in a worker."""

import asyncio
import inspect
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from otel_perfopt._core.flight import Loaded
from otel_perfopt.single_flight.job import Job

__all__ = ("Unawaited", "call_async", "finished")


class Unawaited(TypeError):
    """A loader returned an awaitable to a caller who cannot await it; that caller is wrong, and not the loader."""


def finished(value: Any, *, owner: str, instead: str) -> Any:
    """Return what a loader returned to a synchronous caller, who cannot wait for an awaitable.

    Args:
        value: what it returned.
        owner: whose load it is, for the message.
        instead: what to call instead if that is an awaitable.

    Raises:
        Unawaited: it is one.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise Unawaited(f"{owner}: the loader returned an awaitable to a synchronous call; use '{instead}'")
    return value


async def call_async(loader: Callable[[], Any], job: Job | None) -> Any:
    """Await a coroutine function, or have a worker do the job."""
    if job is None:
        return await loader()
    job.context = copy_context()  # has the span of this load
    outcome = await job.outcome()
    try:
        if not isinstance(outcome, Loaded):
            raise outcome.error or asyncio.CancelledError
        return await outcome.value if inspect.isawaitable(outcome.value) else outcome.value
    finally:
        del outcome
