"""What a pool does behind its callers: create, validate, reset, dispose, and look after what is idle, lost or held for long.

Every change of the state happens under the lock; the jobs that come of it are started, and user code runs, without it.
"""

import math
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from otel_perfopt._core.backoff import Backoff
from otel_perfopt._core.pool import MISSING, PoolState, leases
from otel_perfopt._core.slots import Job
from otel_perfopt.pool.options import Options
from otel_perfopt.pool.resource import Resource, short
from otel_perfopt.telemetry import background
from otel_perfopt.telemetry.clocks import Clock
from otel_perfopt.telemetry.events import emit
from otel_perfopt.telemetry.logs import get_logger
from otel_perfopt.telemetry.pools import PoolCounts

__all__ = ("Housekeeping", "Steps", "act_on")

T = TypeVar("T")
P = ParamSpec("P")

BACKOFF = Backoff(first=0.02, limit=10.0)
SWEEP_EVERY = 60.0  # seconds at most; what an interruption has lost is found by two sweeps
LIFETIME_SPREAD = 0.1  # resources that were created together do not all end together

Steps = Generator[Callable[[], Any], Any, None]
"""A job: yields functions of the user's, to be called without arguments, and gets what they return or raise."""


class Housekeeping:
    """The part of a pool that nobody waits for. A shell says how functions are called, and how time passes."""

    name: str
    _counts: PoolCounts
    _disposers: ClassVar[tuple[str, ...]] = ("destroy", "close")

    def __init__(self, factory: Callable[[], Any], options: Options, clock: Clock) -> None:
        self._factory = factory
        self._options = options
        self._clock = clock
        # Reentrant: a collection of garbage under the lock may run a finalizer that uses this pool.
        self._lock = threading.RLock()
        self._core = self._new_core()
        self._lost: deque[tuple[int, Any]] = deque()
        self._watchers: list[Callable[[], object]] = []
        self._is_armed = False
        self._is_suspicious = False  # whether there was a leak, so that from now on callers are worth their price

    def _new_core(self) -> PoolState[Resource]:
        options, name = self._options, self.name
        self._first_lease = next(leases)
        return PoolState(
            min_size=options.min_size,
            max_size=options.max_size,
            max_waiting=options.max_waiting,
            idle_timeout=options.idle_timeout,
            lifo=options.idle_order == "lifo",
            checks=options.validate is not None,
            resets=options.reset is not None,
            make_slot=lambda number: Resource(number, name),
        )

    # -- what a shell adds

    def _start(self, job: Job) -> None:
        """Have the steps of a job done behind the caller."""
        raise NotImplementedError

    def _make(self, slot: Resource) -> Any:
        """Call the factory; put under telemetry."""
        raise NotImplementedError

    def _after(self, delay: float, act: Callable[[Self], object]) -> None:
        """Have `act` called with the pool, if it still exists, after `delay` seconds; may be called by a finalizer."""
        raise NotImplementedError

    # -- changes

    def _change(self, change: Callable[Concatenate[float, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Change the state, and start the jobs that come of it; an interruption in between is made good."""
        try:
            with self._lock:
                self._bury()
                result = change(self._clock(), *args, **kwargs)
        except BaseException:
            self._recover()
            raise
        self._work()
        return result

    def _recover(self) -> None:
        with self._lock:
            self._core.repair(self._clock())
        self._after(0.0, Housekeeping._sweep)  # others may wait
        self._after(MISSING, Housekeeping._sweep)

    def _work(self) -> None:
        """Start the jobs that are to be done; the lock must not be held, because some may run here and now."""
        while True:
            try:
                with self._lock:
                    if not self._core.jobs:
                        break
                    job = self._core.jobs.popleft()
                self._start(job)
            except BaseException:
                self._recover()  # what has not begun comes back
                raise
        for wake in self._watchers[:]:
            wake()

    # -- jobs

    def _steps(self, job: Job) -> Steps:
        """Do a job; one that is started twice is done once."""
        slot: Resource = job.slot
        with self._lock:
            if slot.is_started or slot.state != ("gone" if job.kind == "dispose" else job.kind):
                return
            slot.is_started = True
        yield from getattr(self, f"_{job.kind}")(slot)
        self._work()

    def _create(self, slot: Resource) -> Steps:
        try:
            value = yield partial(self._make, slot)
            self._refuse(value)
        except GeneratorExit:
            raise  # its event loop is gone
        except BaseException as error:  # noqa: BLE001 - it goes to those who wait
            self._failed(slot, error)
            return
        slot.hold(value, weakref.ref(self))
        lifetime = self._options.max_lifetime * (1 - LIFETIME_SPREAD * random.random())  # noqa: S311 - no secret
        self._counts.created += 1
        with self._lock:
            self._core.created(self._clock(), slot, lifetime)
        self._announce("pool.resource_created", slot)
        self._arm()

    def _failed(self, slot: Resource, error: BaseException) -> None:
        with self._lock:
            delay = BACKOFF.delay(self._core.failures + 1, spread=random.random())  # noqa: S311 - no secret
            self._core.failed(self._clock(), slot, error, delay)
            is_first = self._core.failures == 1
        self._after(delay, Housekeeping._retry)
        if is_first:  # until it works again
            self._tell("the factory of a pool failed", slot, error)

    def _check(self, slot: Resource) -> Steps:
        try:
            is_valid = bool((yield partial(_call, self._options.validate, slot.value)))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - a validator that raises has found something
            self._tell("a resource is not valid", slot, error, level="debug")
            is_valid = False
        with self._lock:
            if is_valid:
                self._core.checked(self._clock(), slot)
            else:
                self._core.give_up(self._clock(), slot, "invalid")

    def _reset(self, slot: Resource) -> Steps:
        try:
            yield partial(_call, self._options.reset, slot.value)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whoever returned the resource has gone on
            with self._lock:
                self._core.give_up(self._clock(), slot, "reset")
            self._tell("a resource could not be reset", slot, error)
        else:
            with self._lock:
                self._core.was_reset(self._clock(), slot)

    def _dispose(self, slot: Resource) -> Steps:
        with self._lock:
            self._counts.destroyed(slot.reason)
        self._announce("pool.resource_destroyed", slot, reason=slot.reason)
        try:
            if slot.value is not None:
                yield partial(_call, self._options.dispose or self._end, slot.value)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - there is nobody to tell
            self._tell("a resource could not be disposed of", slot, error)
        slot.value = slot.rest = None
        with self._lock:
            self._core.leaving.discard(slot)

    def _refuse(self, value: Any) -> None:
        """Raise if the factory must not have returned this."""
        if value is None:
            raise TypeError(f"the factory of pool {self.name!r} returned None; it must return a resource")
        if self._find(value) is not None:
            raise ValueError(f"the factory of pool {self.name!r} returned {short(value)} again; it must make a new resource")

    def _find(self, value: Any) -> Resource | None:
        """Return the slot of a resource."""
        with self._lock:
            return next((slot for slot in self._core.slots.values() if slot.find() is value), None)

    def _end(self, value: Any) -> Any:
        """End a resource in the way that it has itself."""
        methods = (getattr(value, method, None) for method in self._disposers)
        end = next(filter(callable, methods), None)
        return None if end is None else end()

    # -- time

    def _arm(self) -> None:
        """See to it that the pool is swept when something is due."""
        with self._lock:
            now, leak_after = self._clock(), self._options.leak_after
            due = min(now + SWEEP_EVERY, now + self._options.idle_timeout, now + leak_after, self._core.next_sweep())
            for slot in self._core.slots.values():
                due = min(due, slot.expires if slot.expires > now else math.inf)
            for slot in self._held():
                due = min(due, slot.since + leak_after if slot.reported != slot.lease else math.inf)
            if self._is_armed or not self._core.slots:
                return
            self._is_armed = True
        self._after(max(0.0, due - now), Housekeeping._sweep_when_due)

    def _sweep_when_due(self) -> None:
        self._is_armed = False
        self._sweep()

    def _sweep(self) -> None:
        """Let go what has been there for too long, and tell what is held for too long."""
        self._change(self._core.sweep)
        with self._lock:
            limit = self._clock() - self._options.leak_after
            for slot in self._held():
                if slot.since <= limit and slot.reported != slot.lease:
                    slot.reported = slot.lease
                    self._tell_leak("a resource is held for long", slot)
        self._arm()

    def _retry(self) -> None:
        self._change(self._core.retry)

    def _held(self) -> list[Resource]:
        """Return what is lent to somebody who knows about it; a caller who is just being woken does not yet."""
        return [slot for lease, slot in list(self._core.lent.items()) if slot.noted == lease]

    def _lose(self, lease: int, value: Any) -> None:
        """Note that nobody holds a resource any more that was not returned; a finalizer calls this, so it takes no lock."""
        self._lost.append((lease, value))
        self._after(0.0, Housekeeping._sweep)

    def _bury(self) -> None:
        """Take what was lost out of the pool; the lock is held."""
        while self._lost:
            lease, value = self._lost.popleft()
            slot = self._core.lent.pop(lease, None)
            if slot is not None:
                if slot.value is None:
                    slot.value = value
                self._tell_leak("a resource was dropped without being released", slot)
                self._core.give_up(self._clock(), slot, "lost")

    def _announce(self, event: str, slot: Resource, **facts: str) -> None:
        """Emit an event; an exit or interruption that a subscriber raises ends nobody here, where others wait."""
        try:
            emit(event, {"pool": self.name, "resource_id": slot.id, **facts})
        except BaseException as error:  # noqa: BLE001 - see above
            self._tell("a subscriber raised", slot, error)

    def _tell(self, what: str, slot: Resource, error: BaseException, *, level: str = "warning") -> None:
        """Log an error that nobody else gets; not even its text can do any harm here."""
        try:
            getattr(get_logger(), level)(what, pool=self.name, resource_id=slot.id, error=repr(error))
        except Exception:  # noqa: BLE001, S110 - of a log handler, or of the error's own representation
            pass

    def _tell_leak(self, what: str, slot: Resource) -> None:
        self._counts.leaks += 1
        self._is_suspicious = True
        tell = partial(_warn, what, {"pool": self.name, **slot.facts(self._clock())})
        try:
            background.submit(tell)  # log handlers are user code
        except background.NoThread:
            tell()


def act_on(reference: "weakref.ref[Any]", act: Callable[[Any], object]) -> None:
    """Do something with a pool, if it still exists."""
    pool = reference()
    if pool is not None:
        act(pool)


def _call(function: Any, value: Any) -> Any:
    return function(value)


def _warn(what: str, facts: dict[str, Any]) -> None:
    get_logger().warning(what, **facts)
