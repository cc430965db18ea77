"""What pools for threads and pools for asyncio have in common towards their callers."""

import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Generic, TypeVar

from opentelemetry.context import get_current

from otel_perfopt._core.slots import Hold, Waiter
from otel_perfopt.durations import Duration
from otel_perfopt.errors import ConfigurationError, PoolClosed, PoolFull, PoolTimeout
from otel_perfopt.pool.housekeeping import Housekeeping
from otel_perfopt.pool.options import Options, check_max_size, seconds
from otel_perfopt.pool.resource import Resource, describe_holders, short
from otel_perfopt.pool.stacks import Holder, callers
from otel_perfopt.pool.stats import PoolStats
from otel_perfopt.registry import POOL_REGISTRY, Place
from otel_perfopt.telemetry import instruments
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.family import Gauges
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.telemetry.pools import DB_POOLS, POOLS, PoolMetrics, metrics_of
from otel_perfopt.unset import UNSET, Unset

__all__ = ("BasePool", "Grip", "live")

R = TypeVar("R")

USES = 256  # durations that are folded at once

live: "weakref.WeakSet[BasePool[Any]]" = weakref.WeakSet()
_inherited: list[object] = []


class Grip(Hold[Resource], Generic[R]):
    """One lease of one resource, for as long as it lasts.

    Whoever loses it, by an interruption between two steps for instance, does not lose the resource: the pool notices.
    """

    __slots__ = ("_pool", "_timeout", "value")

    value: R

    def __init__(self, pool: "BasePool[R]", timeout: Duration | Unset | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self.slot = None

    def __del__(self) -> None:
        try:
            slot = self.slot
        except AttributeError:  # interrupted before there was anything to lose
            return
        if slot is not None:
            self._pool._lose(self.lease, getattr(self, "value", None))


class BasePool(Housekeeping, Generic[R]):
    """A pool without its way to wait."""

    def __init__(self, name: str, factory: Callable[[], Any], options: Options, clock: Clock, place: Place) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"name={name!r}: a pool needs a name, such as 'database'; its metrics carry it")
        if not callable(factory):
            raise ConfigurationError(f"factory={factory!r} must be callable without arguments, and return a resource")
        self.name = name
        self.metrics = metrics_of(options.semconv)
        super().__init__(factory, options, clock)
        family, gauges = self.metrics.family, _gauges(self.metrics)
        self._counts = POOLS.join(name, self, gauges if family is POOLS else {})
        self._timeout_counts = (self._counts,) if family is POOLS else (self._counts, DB_POOLS.join(name, self, gauges))
        self._wait_time = family.latency(name, self.metrics.wait_time)
        self._use_time = family.latency(name, self.metrics.use_time, size=USES)
        POOL_REGISTRY.register(name, self, place, stacklevel=3)
        live.add(self)

    @property
    def min_size(self) -> int:
        """The resources that are kept even if nobody uses them."""
        return self._core.min_size

    @property
    def max_size(self) -> int:
        """The most resources."""
        return self._core.max_size

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._core.is_closed

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed, " if self.is_closed else ""
        return (
            f"<{type(self).__name__} {self.name!r}: {state}{stats.in_use} in use, {stats.available} idle, "
            f"{stats.waiting} waiting, max_size={self.max_size}>"
        )

    def stats(self) -> PoolStats:
        """Return the state of the pool now."""
        with self._lock:
            core, counts, states = self._core, self._counts, self._states()
            return PoolStats(
                name=self.name,
                total_created=counts.created,
                available=states["idle"],
                in_use=states["used"],
                creating=core.creating,
                waiting=len(core.waiters),
                min_size=core.min_size,
                max_size=core.max_size,
                acquires=counts.acquires,
                timeouts=counts.timeouts,
                rejected=counts.rejected,
                leaks=counts.leaks,
                destroyed=counts.destroyed_by_reason(),
            )

    def resize(self, max_size: int) -> None:
        """Change the most resources; what is too many goes at once if it is idle, and when it is returned if it is not.

        Args:
            max_size: 1 or more, and no less than `min_size`.

        Raises:
            ConfigurationError: it is not.
        """
        self._check_here()
        check_max_size(max_size, self._core.min_size)
        self._change(self._core.resize, max_size)

    def drain(self) -> None:
        """Replace every resource: at once if it is idle, and when it is returned if somebody holds it."""
        self._check_here()
        self._change(self._core.expire_all, "drain")

    def release(self, resource: R) -> None:
        """Return a resource that was acquired. Nothing is waited for, and any thread or task may do it.

        Raises:
            ValueError: the resource was not acquired from this pool, or was returned already.
        """
        self._check_here()
        self._put_back(self._lease_of(resource, "release"), resource)

    def destroy(self, resource: R) -> None:
        """Return a resource that nobody should use again; it is disposed of behind the caller, and replaced if need be.

        Raises:
            ValueError: the resource was not acquired from this pool, or was returned already.
        """
        self._check_here()
        slot = self._core.lent.pop(self._lease_of(resource, "destroy"), None)
        if slot is not None:
            self._use_time.record(self._clock() - slot.since)
            slot.value = resource
            self._change(self._core.give_up, slot, "requested")

    def _check_here(self) -> None:
        """Refuse to be used from where that is not allowed."""

    # -- opening and closing

    def _open(self) -> None:
        if self._core.is_closed:
            raise self._closed()
        self._change(self._core.open)

    def _is_filled(self) -> bool:
        """Whether the first resources are there.

        Raises:
            BaseException: why they will not be.
        """
        core = self._core
        if core.is_closed:
            raise self._closed()
        if core.last_error is not None and not core.has_worked:
            raise core.last_error
        return len(core.slots) - core.creating >= core.min_size

    def _close(self) -> None:
        self._change(self._core.close, self._closed)

    def _tell_left_open(self) -> bool:
        with self._lock:
            now, slots, held = self._clock(), list(self._core.slots.values()), self._held()
        get_logger().warning(
            "a pool was closed before everything was returned and disposed of",
            pool=self.name,
            held=describe_holders(held, now, 0),
            unfinished=len(slots) - len(held) + len(self._core.leaving),
        )
        return False

    # -- lending

    def _take(self, grip: Grip[R], holder: Holder, frame: FrameType) -> bool:
        """Take what is idle, or return False if the caller has to wait."""
        now = self._clock()
        if not self._core.take(now, grip):
            return False
        self._wait_time.zeros += 1
        self._note(grip, now, holder, frame)
        return True

    def _note(self, grip: Grip[R], now: float, holder: Holder, frame: FrameType) -> None:
        """Note who has the resource, and keep only as much of it as lets its collection be noticed."""
        slot: Any = grip.slot
        grip.value = slot.value
        slot.value = slot.rest
        slot.since = now
        slot.holder = holder
        slot.context = get_current()
        slot.code = frame.f_code
        slot.offset = frame.f_lasti
        slot.noted = grip.lease
        self._counts.acquires += 1
        if self._is_suspicious:
            slot.callers = grip.lease, callers(frame)[1:]

    def _hand_out(self, grip: Grip[R], frame: FrameType) -> R:
        """Give the resource to a caller who has to return it by hand, and who is more likely to forget it."""
        slot: Any = grip.slot
        slot.code, slot.offset = frame.f_code, frame.f_lasti
        slot.callers = grip.lease, callers(frame)[1:]
        grip.slot = None
        return grip.value

    def _abandon(self, grip: Grip[R]) -> None:
        """Take back what a caller has got who was interrupted before it could use it."""
        slot = grip.slot
        if slot is not None and self._core.lent.pop(grip.lease, None) is not None:
            if slot.value is None:  # it is noted already
                slot.value = grip.value
            self._change(self._core.give_back, slot)
        grip.slot = None

    def _let_go(self, grip: Grip[R]) -> None:
        """End a lease; one that somebody has ended already stays ended."""
        if grip.slot is not None:
            self._put_back(grip.lease, grip.value)
            grip.slot = None

    def _put_back(self, lease: int, value: Any) -> None:
        slot = self._core.lent.pop(lease, None)
        if slot is None:
            if lease < self._first_lease:
                _inherited.append(value)
            return
        now = self._clock()
        slot.value = value
        uses = self._use_time.pending
        uses.append(now - slot.since)
        if len(uses) >= USES:
            self._use_time.fold()
        rests = self._core.rest(now, slot)
        if rests is False:
            self._change(self._core.give_back, slot)
        elif rests is None:
            self._change(self._core.sweep)

    def _lease_of(self, resource: Any, action: str) -> int:
        """Return the lease of a resource that somebody holds; 0 for one that the parent process has lent."""
        for lease, slot in list(self._core.lent.items()):
            if slot.find() is resource:
                return lease
        if any(inherited is resource for inherited in _inherited):
            return 0
        owner = next((pool.name for pool in POOL_REGISTRY.live() if pool is not self and pool._find(resource) is not None), None)
        reason = "it was not acquired here, or was released already" if owner is None else f"it belongs to pool {owner!r}"
        raise ValueError(f"pool {self.name!r} cannot {action} {short(resource)}: {reason}")

    # -- waiting

    def _join(self, waiter: Waiter[Resource]) -> None:
        """Put a caller in line.

        Raises:
            PoolClosed: there is no line any more.
            PoolFull: it is full.
        """
        if not self._change(self._core.join, waiter):
            if self._core.is_closed:
                raise self._closed()
            self._counts.rejected += 1
            limit, waiting = self._options.max_waiting, len(self._core.waiters)
            raise PoolFull(
                f"all {self.max_size} resources of pool {self.name!r} are in use and {waiting} callers wait, max_waiting={limit}",
                context={"pool": self.name, "max_waiting": limit},
            )

    def _accept(self, waiter: Waiter[Resource], grip: Grip[R], holder: Holder, frame: FrameType, start: float) -> Resource:
        """Return what the caller has got while it waited, as its own.

        Raises:
            BaseException: why it has got nothing.
        """
        with self._lock:
            slot, now = waiter.slot, self._clock()
            if slot is not None:
                grip.lease = waiter.lease
                grip.slot = slot
                waiter.slot = None
                self._note(grip, now, holder, frame)
        if slot is None:
            raise self._timed_out(now - start, holder) if waiter.error is None else waiter.error
        self._wait_time.record_here(now - start)
        if not waiter.is_fresh:
            slot.origin = None  # only the first lease waited for the creation
        return slot

    def _leave(self, waiter: Waiter[Resource]) -> None:
        self._change(self._core.leave, waiter)

    def _timed_out(self, waited: float, caller: Holder) -> PoolTimeout:
        """Return the error of a caller whose time is over; it tells who holds what."""
        for counts in self._timeout_counts:
            counts.timeouts += 1
        with self._lock:
            core, now = self._core, self._clock()
            held = self._held()
            busy = len(core.slots) - len(held) - len(core.idle) - core.creating
            summary = (
                f"pool {self.name!r} had no resource to give within {waited:.3g} s. Of at most {core.max_size}, {len(held)} are "
                f"held, {len(core.idle)} idle, {core.creating} being created, {busy} being validated or reset."
            )
            lines = describe_holders(held, now, caller)
            failures, cause = core.failures, core.last_error
        if failures:
            summary += f" The factory has failed {failures} times in a row; its last error is the cause of this one."
        context = {"pool": self.name, "seconds": waited, "holders": [slot.facts(now) for slot in held]}
        error = PoolTimeout("\n  ".join([summary, *lines]), context=context)
        error.__cause__ = cause
        return error

    def _closed(self) -> PoolClosed:
        return PoolClosed(f"pool {self.name!r} is closed", context={"pool": self.name})

    def _patience(self, grip: Grip[R]) -> float:
        return self._seconds(grip._timeout)

    def _seconds(self, timeout: Duration | Unset | None) -> float:
        return self._options.acquire_timeout if timeout is UNSET else seconds("timeout", timeout, allow_zero=True)

    def _states(self) -> dict[str, int]:
        core = self._core
        return {"idle": len(core.idle), "used": len(core.slots) - len(core.idle) - core.creating}

    def _reset_after_fork(self) -> None:
        """Start again with nothing: the resources are the parent's, which must not notice anything, not even that they end."""
        _inherited.append(self._core)
        _inherited.extend(slot.find() for slot in self._core.slots.values())
        is_closed, max_size = self._core.is_closed, self._core.max_size
        self._lock = threading.RLock()
        self._core = self._new_core()
        self._core.is_closed, self._core.max_size = is_closed, max_size
        self._lost.clear()
        self._watchers.clear()
        self._is_armed = False


def _gauges(metrics: PoolMetrics) -> Gauges:
    readings: dict[Any, Callable[[BasePool[Any]], Any]] = {
        metrics.states: lambda pool: pool._states(),
        metrics.maximum: lambda pool: pool.max_size,
        metrics.idle_min: lambda pool: pool.min_size,
        metrics.pending: lambda pool: len(pool._core.waiters),
    }
    if metrics.idle_max is not None:
        readings[metrics.idle_max] = lambda pool: pool.max_size
    return readings


def _after_fork() -> None:
    for pool in list(live):
        pool._reset_after_fork()


instruments.on_fork(_after_fork)
