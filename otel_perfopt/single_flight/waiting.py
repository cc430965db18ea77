"""How callers wait for a flight: threads on a lock, coroutines on a future of their own loop."""

import asyncio
import math
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial

from otel_perfopt._core.flight import Node
from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.clocks import Clock

__all__ = ("Deadline", "Waits", "loop_node", "reachable", "running_loop", "thread_node", "wait_in_loop", "wait_in_thread")

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
    while pending:
        # A copy: others add and remove edges meanwhile. No lock: in Python 3.13, an interruption in a loop may leave it locked.
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
    """A context manager that notes that `waiters` wait for `flight`, which may be any node.

    Entering tells whether the wait can end: False if the flight itself waits for one of the waiters.
    """

    __slots__ = ("_flight", "_link", "_waiters")

    def __init__(self, waiters: list[Node], flight: Node) -> None:
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


class Deadline:
    """When a caller stops waiting.

    Args:
        clock: returns seconds; one for tests brings its own timers, see `otel_perfopt.telemetry.clocks`.
        seconds: how long to wait; may be infinite.
        at_most: how long to wait if there is no other answer then; None for no longer.
    """

    __slots__ = ("_clock", "_end", "_last")

    def __init__(self, clock: Clock, seconds: float, *, at_most: float | None = None) -> None:
        now = clock()
        self._clock = clock
        self._end = now + seconds
        self._last = self._end if at_most is None else now + at_most

    @property
    def is_endless(self) -> bool:
        """Whether it never comes."""
        return self._end == math.inf

    def left(self) -> float:
        """Return the seconds that are left; 0 when it is over."""
        return max(0.0, self._end - self._clock())

    def prolong(self) -> bool:
        """Wait until the last moment, and return whether that is later."""
        is_later = self._last > self._end
        self._end = self._last
        return is_later

    def ring(self, wake: Callable[[], object]) -> None:
        """Have `wake` called when it is over, if that is not a matter of real time."""
        after = getattr(self._clock, "after", None)
        if after is not None and self._end != math.inf:
            after(self.left(), wake)


def wait_in_thread(
    subscribe: Callable[[Callable[[], None]], bool], can_end: Callable[[], bool], deadline: Deadline | None = None
) -> None:
    """Block this thread until the flight ends, until `can_end` says that it will not, or until it is too late.

    Args:
        subscribe: takes a waker; returns False if the flight has ended.
        can_end: asked at once and then every second; may do something about it.
        deadline: when to stop waiting; None for never.
    """
    barrier = threading.Lock()
    barrier.acquire()
    wake = partial(_release, barrier)
    if not subscribe(wake):
        return
    if deadline is None:
        while can_end() and not barrier.acquire(timeout=STALL_CHECK):
            pass
        return
    deadline.ring(wake)
    while can_end() and (left := deadline.left()) and not barrier.acquire(timeout=min(left, STALL_CHECK)):
        pass


async def wait_in_loop(
    subscribe: Callable[[Callable[[], None]], bool], can_end: Callable[[], bool] | None, deadline: Deadline | None = None
) -> None:
    """Suspend this coroutine until the flight ends, until `can_end` says that it will not, or until it is too late.

    Args:
        subscribe: takes a waker; returns False if the flight has ended.
        can_end: asked every second; None if that is certain.
        deadline: when to stop waiting; None for never.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_arrive, arrived)
        except RuntimeError:
            pass  # the loop is closed, and with it whoever waited there

    if not subscribe(wake):
        return
    if can_end is None and deadline is None:
        await arrived
        return
    if deadline is not None:
        deadline.ring(wake)
    while True:
        left = math.inf if deadline is None else deadline.left()
        timeout = left if can_end is None else min(left, STALL_CHECK)
        done, _ = await asyncio.wait((arrived,), timeout=None if timeout == math.inf else timeout)
        if done or not left or (can_end is not None and not can_end()):
            return


def _release(barrier: threading.Lock) -> None:
    try:
        barrier.release()
    except RuntimeError:
        pass  # whoever was blocked is free already


def _arrive(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def _after_fork() -> None:
    global _graph_lock
    _graph_lock = threading.RLock()
    for node in list(_loop_nodes.values()):
        node.waiting_for.clear()


instruments.on_fork(_after_fork)
