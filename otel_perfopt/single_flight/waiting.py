"""How callers wait for a flight: threads on a lock, coroutines on a future of their own loop."""

import asyncio
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable

from otel_perfopt._core.flight import Flight, Node
from otel_perfopt.telemetry import instruments

__all__ = ("Waits", "loop_node", "reachable", "running_loop", "thread_node", "wait_in_loop", "wait_in_thread")

STALL_CHECK = 1.0  # seconds between two looks at whether a wait can still end

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


def reachable(start: Node) -> list[Node]:
    """Return `start` and everything that it waits for, however indirectly."""
    found = {start: None}
    pending = [start]
    with _graph_lock:
        while pending:
            # A copy: others add and remove edges without the lock.
            fresh = [node for node in list(pending.pop().waiting_for) if node not in found]
            found.update(dict.fromkeys(fresh))
            pending.extend(fresh)
    return list(found)


class _Thread(threading.local):
    """What stands for the present thread in the graph."""

    def __init__(self) -> None:
        self.node = Node()


_thread = _Thread()


def thread_node() -> Node:
    """Return the node that stands for this thread in the graph of who waits for whom."""
    return _thread.node


class Waits:
    """A context manager that notes that `waiters` wait for `flight`.

    Entering tells whether the wait can end: False if the flight itself waits for one of the waiters.
    """

    __slots__ = ("_flight", "_link", "_waiters")

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
            # Each wait has an edge of its own: of two waits for one flight, the first to end must not take away the other's.
            self._link = Node()
            self._link.waiting_for.add(self._flight)
            for waiter in self._waiters:
                waiter.waiting_for.add(self._link)
        return True

    def __exit__(self, *_: object) -> None:
        if self._waiters:
            with _graph_lock:
                for waiter in self._waiters:
                    waiter.waiting_for.discard(self._link)


def wait_in_thread(subscribe: Callable[[Callable[[], None]], bool], can_end: Callable[[], bool]) -> None:
    """Block this thread until the flight ends, or until `can_end` says that it will not.

    Args:
        subscribe: takes a waker; returns False if the flight has ended.
        can_end: asked at once and then every second; may do something about it.
    """
    barrier = threading.Lock()
    barrier.acquire()
    if subscribe(barrier.release):
        while can_end() and not barrier.acquire(timeout=STALL_CHECK):
            pass


async def wait_in_loop(subscribe: Callable[[Callable[[], None]], bool], can_end: Callable[[], bool] | None) -> None:
    """Suspend this coroutine until the flight ends, or until `can_end` says that it will not.

    Args:
        subscribe: takes a waker; returns False if the flight has ended.
        can_end: asked every second; None if that is certain.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_arrive, arrived)
        except RuntimeError:
            pass  # the loop is closed, and with it whoever waited there

    if subscribe(wake):
        if can_end is None:
            await arrived
        else:
            while not (await asyncio.wait((arrived,), timeout=STALL_CHECK))[0] and can_end():
                pass


def _arrive(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def _after_fork() -> None:
    global _graph_lock
    _graph_lock = threading.RLock()
    for node in list(_loop_nodes.values()):
        node.waiting_for.clear()


instruments.on_fork(_after_fork)
