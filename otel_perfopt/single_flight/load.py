"""One load: what is asked for, what runs it, and who waits while it runs."""

import asyncio
import inspect
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import partial
from typing import Any

from typing_extensions import override

from otel_perfopt._core.flight import Flight, Node, Outcome
from otel_perfopt.single_flight.job import Job
from otel_perfopt.single_flight.waiting import loop_node, reachable, running_loop, thread_node

__all__ = ("Load", "Request", "current_load", "is_coroutine_function", "waiters")

current_load: ContextVar[Node | None] = ContextVar("otel_perfopt_current_load", default=None)
"""The ticket of the load that the running code is a part of."""


@dataclass(frozen=True, slots=True)
class Request:
    """A wish for a value.

    Attributes:
        key: what is wanted.
        loader: what makes the value.
    """

    key: Hashable
    loader: Callable[..., Any]


class Load(Flight):
    """A flight together with what runs it.

    Args:
        request: what to load.
        loop: the event loop that runs it; None for a load that runs in its caller's thread.
        job: the part that runs in a worker, if there is one.

    Attributes:
        task: the task that runs it, once it is started.
        ticket: stands for the load in the contexts of the code under it; contexts may outlive the load and must not keep it.
    """

    __slots__ = ("job", "loader", "loop", "task", "ticket")

    def __init__(self, request: Request, loop: AbstractEventLoop | None, job: Job | None) -> None:
        super().__init__(request.key)
        self.loader = request.loader
        self.loop = loop
        self.job = job
        self.ticket = Node()
        self.waiting_for.add(self.ticket)
        self.task: asyncio.Task[None] | None = None
        if job is not None:
            job.context.run(current_load.set, self.ticket)

    def start(self, loop: AbstractEventLoop, work: Coroutine[Any, Any, None], on_end: Callable[[], object]) -> None:
        """Run it as a task of its loop, which is the running one."""
        self.waiting_for.add(loop_node(loop))
        self.task = loop.create_task(work)
        # Ends a flight whose task is cancelled before its first step, too.
        self.task.add_done_callback(lambda _: on_end())

    def start_behind(self) -> None:
        """Have a worker run its job, for callers who may stop waiting for it, or do not wait at all."""
        if (job := self.job) is not None:  # not if somebody has lent it a thread, and it has ended
            job.start()

    def enter(self) -> list[tuple[ContextVar[Any], Token[Any]]]:
        """Set what code under the load may ask for, and return what resets it."""
        return [(current_load, current_load.set(self.ticket))]

    @override
    def end(self, outcome: Outcome) -> None:
        super().end(outcome)
        self.job = None  # which may know this load

    def cancel(self) -> None:
        """Cancel the task, from any thread; a load that runs in a thread goes on, and nobody gets its value."""
        loop, task = self.loop, self.task
        if loop is None or task is None:
            return
        if running_loop() is loop:
            task.cancel()
            return
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop is closed

    def can_end(self) -> bool:
        """Whether it is under way: not if its loop has stopped, for now or for good."""
        return self.loop is None or self.loop.is_running()

    def look_after(self, *, limited: bool = False) -> bool:
        """Lend threads to what it waits for, for a caller that blocks its own (see `Job.lend_thread`); return `can_end`."""
        for node in reachable(self):
            if isinstance(node, Load) and node.job is not None:
                node.job.lend_thread(limited=limited)
        return self.can_end()


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling `function` makes a coroutine, as far as can be seen without calling it."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - looks into it


def waiters(*, blocks_loop: bool = False, blocks_thread: bool = False) -> list[Node]:
    """Return what waits while this caller waits: the load that it is part of, and the loop and the thread that it blocks."""
    found: list[Node] = []
    current = current_load.get()
    if current is not None:
        found.append(current)
    if blocks_loop and (loop := running_loop()) is not None:
        found.append(loop_node(loop))
    if blocks_thread:
        found.append(thread_node())
    return found
