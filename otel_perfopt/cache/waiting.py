"""How callers wait for a flight: threads on a lock, coroutines on a future of their own loop."""

import asyncio
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable

from otel_perfopt._core.flight import Flight, Node

__all__ = ("Waits", "loop_node", "running_loop", "wait_in_loop", "wait_in_thread")

DEAD_LOOP_CHECK = 1.0

_loop_nodes: "weakref.WeakKeyDictionary[AbstractEventLoop, Node]" = weakref.WeakKeyDictionary()
_graph_lock = threading.RLock()


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def loop_node(loop: AbstractEventLoop) -> Node:
    """Return the node that stands for `loop` in the graph of who waits for whom."""
    with _graph_lock:
        return _loop_nodes.setdefault(loop, Node())


class Waits:
    """A context manager that notes that `waiters` wait for `flight`.

    Entering tells whether the wait can end: False if the flight itself waits for one of the waiters.
    """

    __slots__ = ("_flight", "_waiters")

    def __init__(self, waiters: list[Node], flight: Flight) -> None:
        self._waiters = waiters
        self._flight = flight

    def __enter__(self) -> bool:
        if not self._waiters:
            return True
        with _graph_lock:
            if any(self._flight.waits_for(waiter) for waiter in self._waiters):
                self._waiters = []
                return False
            for waiter in self._waiters:
                waiter.waiting_for.add(self._flight)
        return True

    def __exit__(self, *_: object) -> None:
        if self._waiters:
            with _graph_lock:
                for waiter in self._waiters:
                    waiter.waiting_for.discard(self._flight)


def wait_in_thread(subscribe: Callable[[Callable[[], None]], bool], is_dead: Callable[[], bool]) -> None:
    """Block this thread until the flight ends, or until `is_dead` says that it never will.

    Args:
        subscribe: takes a waker; returns False if the flight has ended.
        is_dead: whether the loop that runs the flight is closed.
    """
    barrier = threading.Lock()
    barrier.acquire()
    if subscribe(barrier.release):
        while not barrier.acquire(timeout=DEAD_LOOP_CHECK):
            if is_dead():
                return


async def wait_in_loop(subscribe: Callable[[Callable[[], None]], bool]) -> None:
    """Suspend this coroutine until the flight ends."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_arrive, arrived)
        except RuntimeError:
            pass  # the loop is closed, and with it whoever waited there

    if subscribe(wake):
        await arrived


def _arrive(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def reset_after_fork() -> None:
    """Forget who waited in the parent."""
    global _graph_lock
    _graph_lock = threading.RLock()
    for node in list(_loop_nodes.values()):
        node.waiting_for.clear()
