"""The state machine of a pool: which resource goes to whom, and what has to be done about the others.

It creates, validates, resets and disposes of nothing itself: what is to be done comes out as jobs, for a shell to do without
a lock, and the outcome comes back as a call. A slot leaves the ledger before its resource is disposed of, so that freed
capacity never waits for that. Callers who find nothing idle stand in one line, and whatever becomes free goes to the first.

Everything is called under the shell's lock but `take` and `rest`, for which a lock would cost more than all that they do. They
need none: an idle slot belongs to whoever gets it out of `idle`, a lease is ended by whoever gets it out of `lent`, and each
of these is one step of the interpreter. What an interruption between two such steps loses, `sweep` finds.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Generic, Literal, TypeVar

from otel_perfopt._core.slots import Hold, Job, Reason, Slot, Waiter

__all__ = ("MISSING", "STUCK", "PoolState", "leases")

MISSING = 10.0
"""Seconds after which a slot is given up that is ready, but neither idle nor lent."""

STUCK = 10.0
"""Seconds after which a creation is not counted on any more; others are begun beside it."""

leases = count(1)  # of all pools: a number never means another lease, not even in a forked child

S = TypeVar("S", bound=Slot)


class PoolState(Generic[S]):
    """Slots, the line of callers, and the rules.

    Args:
        min_size: resources that are kept even if nobody uses them.
        max_size: the most resources, those included that are being created.
        max_waiting: the most callers that wait for somebody to return something; None for no limit.
        idle_timeout: seconds after which an idle resource goes, if it is not needed for `min_size`.
        lifo: whether the resource that was returned last is taken first.
        checks: whether a resource is validated before somebody gets it.
        resets: whether a resource is reset when it is returned.
        make_slot: makes a slot with a number; the shell's own kind, which knows more.

    Attributes:
        slots: the ledger: everything that counts towards `max_size`.
        idle: slots that nobody has.
        lent: slots that somebody has, by the number of the lease.
        changes: how often the rules for all slots have changed.
        leaving: slots whose resources have not been disposed of yet.
        jobs: what the shell has to take and do.
        retry_at: before this time nothing is created, because that failed; None if it did not.
    """

    def __init__(
        self,
        *,
        min_size: int,
        max_size: int,
        max_waiting: int | None,
        idle_timeout: float,
        lifo: bool,
        checks: bool,
        resets: bool,
        make_slot: Callable[[int], S],
    ) -> None:
        self.min_size, self.max_size, self.max_waiting = min_size, max_size, max_waiting
        self.idle_timeout = idle_timeout
        self.is_open = self.is_closed = self.has_worked = False
        self.slots: dict[int, S] = {}
        self.leaving: set[S] = set()
        self.idle: deque[S] = deque()
        self.lent: dict[int, S] = {}
        self.waiters: OrderedDict[Waiter[S], None] = OrderedDict()
        self.jobs: deque[Job] = deque()
        self.creating = self.checking = self.failures = self.changes = 0
        self.retry_at: float | None = None
        self.last_error: BaseException | None = None
        self._lifo = lifo
        self._get = self.idle.pop if lifo else self.idle.popleft
        self._checks, self._resets, self._make_slot = checks, resets, make_slot
        self._serial = 0
        self._ramp = 1

    # -- callers

    def take(self, now: float, hold: Hold[S]) -> bool:
        """Give an idle slot to a caller who came now; False if it has to wait in line."""
        if not self.idle or self.waiters or self._checks:
            return False
        try:
            slot = self._get()
        except IndexError:  # somebody was faster
            return False
        if slot.expires <= now:
            (self.idle.append if self._lifo else self.idle.appendleft)(slot)
            return False
        hold.lease = slot.lease = lease = next(leases)
        hold.slot = slot
        self.lent[lease] = slot
        return True

    def rest(self, now: float, slot: S) -> bool | None:
        """Let a slot be idle whose lease has ended.

        Returns:
            True if that was all; False if it was not possible, and the slot has to be given back; None if something has
            changed meanwhile, and has to be swept.
        """
        changes = self.changes
        if slot.expires <= now or self.waiters or self._resets or len(self.slots) > self.max_size:
            return False
        slot.idle_since = now
        self.idle.append(slot)
        return True if not self.waiters and self.changes == changes else None

    def join(self, now: float, waiter: Waiter[S]) -> bool:
        """Put a caller at the end of the line; False if the line is full, or closed."""
        if self.is_closed:
            return False
        # Whatever is not lent, or not even created yet, comes although nobody returns anything.
        coming = max(0, self.max_size - len(self.lent))
        if self.max_waiting is not None and len(self.waiters) - coming >= self.max_waiting:
            return False
        self.is_open = True
        self.waiters[waiter] = None
        self.supply(now)
        return True

    def leave(self, now: float, waiter: Waiter[S]) -> None:
        """Let a caller go who does not want anything any more; what it has got already goes to the next."""
        if waiter in self.waiters:
            del self.waiters[waiter]
            self.supply(now)
        elif waiter.slot is not None and self.lent.pop(waiter.lease, None) is not None:
            self._settle(now, waiter.slot)

    def give_back(self, now: float, slot: S) -> None:
        """Take back a slot whose lease has ended."""
        if self._resets and slot.expires > now:
            self._begin("reset", slot)
        else:
            self._settle(now, slot)

    def give_up(self, now: float, slot: S, reason: Reason) -> None:
        """Take a slot out of the pool whose lease has ended, or that turned out useless."""
        if slot.state == "check":
            self.checking -= 1
        self._remove(slot, reason)
        self.supply(now)

    # -- outcomes of jobs

    def created(self, now: float, slot: S, lifetime: float) -> None:
        """Note that the factory has made the resource of a slot."""
        slot.expires = min(slot.expires, now + lifetime)
        self.failures, self.retry_at, self.last_error = 0, None, None
        self.has_worked = True
        waited = len(self.waiters)
        self.creating -= 1
        self._settle(now, slot, is_fresh=True)
        # If the line is longer than what comes in one by one, more is created at once next time. A burst that the resources
        # at hand can serve is over by then.
        self._ramp = self._ramp + 1 if waited > 1 else 1
        self.supply(now)

    def failed(self, now: float, slot: S, error: BaseException, delay: float) -> None:
        """Note that the factory failed; nothing is tried again for `delay` seconds."""
        self.creating -= 1
        self.slots.pop(slot.number, None)
        slot.state = "gone"
        self.failures += 1
        self.last_error = error
        self.retry_at = now + delay
        self._ramp = 1
        if not self.has_worked and self.waiters:
            # Nothing has ever been created: this is no outage that passes, and somebody should know at once.
            waiter = next(iter(self.waiters))
            waiter.error = error
            waiter.wake()
            del self.waiters[waiter]
        self.supply(now)

    def retry(self, now: float) -> None:
        """Try again what failed, unless it has failed once more meanwhile, and is to be tried later."""
        if self.retry_at is None or now >= self.retry_at:
            self.retry_at = None
            self.supply(now)

    def checked(self, now: float, slot: S) -> None:
        """Note that a slot is valid."""
        self.checking -= 1
        self._settle(now, slot, is_checked=True)

    def was_reset(self, now: float, slot: S) -> None:
        """Note that a slot has been reset."""
        self._settle(now, slot)

    # -- the whole pool

    def open(self, now: float) -> None:
        """Create the first resources."""
        self.is_open = True
        self.supply(now)

    def resize(self, now: float, max_size: int) -> None:
        """Change the most resources; what is too many goes now if it is idle, and else when it is returned."""
        self.max_size = max_size
        self.changes += 1
        self.sweep(now)

    def expire_all(self, now: float, reason: Reason) -> None:
        """Let every resource go: now if it is idle, and else when it is returned."""
        for slot in self.slots.values():
            slot.expires, slot.reason = -math.inf, reason
        self.changes += 1
        self.sweep(now)

    def close(self, now: float, make_error: Callable[[], BaseException]) -> None:
        """Let every resource go, and every caller in line."""
        self.is_closed = True
        while self.waiters:
            waiter = next(iter(self.waiters))
            waiter.error = make_error()
            waiter.wake()
            del self.waiters[waiter]
        self.expire_all(now, "close")

    def sweep(self, now: float) -> None:
        """Let go what has been idle for too long, has lived for too long, or is too many; create what is missing then."""
        for slot in list(self.idle):
            if slot.expires <= now and self._claim(slot):
                self._remove(slot, slot.reason)
            elif slot.idle_since + self.idle_timeout <= now and len(self.slots) > self.min_size and self._claim(slot):
                self._remove(slot, "idle")
        while len(self.slots) > self.max_size and (coldest := self._pop(self.idle.popleft)) is not None:
            self._remove(coldest, "resize")
        self._find_missing(now)
        self.supply(now)

    def next_sweep(self) -> float:
        """Return when something that is idle has to go; infinity if nothing has."""
        timeout = self.idle_timeout if len(self.slots) > self.min_size else math.inf
        return min((min(slot.expires, slot.idle_since + timeout) for slot in list(self.idle)), default=math.inf)

    def is_empty(self) -> bool:
        """Whether nothing is left, and nothing is being disposed of."""
        return not self.slots and not self.leaving

    def repair(self, now: float) -> None:
        """Make everything agree with the ledger again, after an interruption in the middle of a step."""
        for job in self.jobs:
            if job.kind == "dispose":
                self._forget(job.slot)
        planned = {job.slot.number for job in self.jobs}
        slots = self.slots.values()
        self.creating = sum(slot.state == "create" for slot in slots)
        self.checking = sum(slot.state == "check" for slot in slots)
        for slot in slots:
            if slot.state in ("create", "check", "reset") and not slot.is_started and slot.number not in planned:
                self.jobs.append(Job(slot.state, slot))
        for slot in self.leaving:
            if not slot.is_started and slot.number not in planned:
                self.jobs.append(Job("dispose", slot))
        for waiter in [waiter for waiter in self.waiters if waiter.slot is not None or waiter.error is not None]:
            if waiter.slot is not None:
                self.lent[waiter.lease] = waiter.slot
            waiter.wake()
            del self.waiters[waiter]
        self.supply(now)

    # -- rules

    def supply(self, now: float) -> None:
        """Give what is idle to those who wait, and begin to create what they and the floor need."""
        while len(self.waiters) > self.checking and (slot := self._pop(self._get)) is not None:
            if slot.expires <= now:
                self._remove(slot, slot.reason)
            elif self._checks:
                self.checking += 1
                self._begin("check", slot)
            else:
                self._grant(slot)
        for _ in range(self._wanted(now)):
            slot = self._make_slot(self._serial)
            self._serial += 1
            self.slots[slot.number] = slot
            slot.idle_since = now
            self.creating += 1
            self._begin("create", slot)

    def _settle(self, now: float, slot: S, *, is_fresh: bool = False, is_checked: bool = False) -> None:
        """Hand a slot to the first in line, or let it rest, or let it go."""
        if slot.expires <= now:
            self._remove(slot, slot.reason)
        elif len(self.slots) > self.max_size:
            self._remove(slot, "resize")
        elif self.waiters and (is_fresh or is_checked or not self._checks):
            self._grant(slot, is_fresh=is_fresh)
        else:
            slot.state = "ready"
            slot.idle_since = now
            self.idle.append(slot)
        if self.waiters or len(self.slots) < self.min_size:
            self.supply(now)

    def _grant(self, slot: S, *, is_fresh: bool = False) -> None:
        waiter = next(iter(self.waiters))
        slot.state = "ready"
        waiter.is_fresh = is_fresh
        waiter.lease = slot.lease = next(leases)
        waiter.slot = slot
        self.lent[waiter.lease] = slot
        waiter.wake()  # before it is out of the line, where an interruption would not be made good
        del self.waiters[waiter]

    def _pop(self, get: Callable[[], S]) -> S | None:
        """Get a slot out of `idle`; None if there is none."""
        try:
            return get()
        except IndexError:
            return None

    def _claim(self, slot: S) -> bool:
        """Get this slot out of `idle`; False if somebody was faster."""
        try:
            self.idle.remove(slot)
        except ValueError:
            return False
        return True

    def _find_missing(self, now: float) -> None:
        """Give up what was lost between two hands; whoever has it in hand at this very moment will have lent it soon."""
        at_hand = {*list(self.idle), *list(self.lent.values()), *list(self.idle)}
        for slot in list(self.slots.values()):
            if slot.state != "ready" or slot in at_hand:
                slot.missing = None
            elif slot.missing is None or slot.missing[1] != slot.lease:
                slot.missing = now, slot.lease
            elif now - slot.missing[0] >= MISSING:
                self._remove(slot, "lost")

    def _begin(self, kind: Literal["create", "check", "reset"], slot: S) -> None:
        slot.is_started = False
        slot.state = kind
        self.jobs.append(Job(kind, slot))

    def _remove(self, slot: S, reason: Reason) -> None:
        """Let a slot go that nobody else can get any more."""
        slot.is_started = False
        slot.reason = reason
        self.jobs.append(Job("dispose", slot))
        self._forget(slot)

    def _forget(self, slot: S) -> None:
        self.leaving.add(slot)
        self.slots.pop(slot.number, None)
        slot.state = "gone"

    def _wanted(self, now: float) -> int:
        """Return how many resources to begin to create now."""
        if not self.is_open or self.is_closed or (self.retry_at is not None and now < self.retry_at):
            return 0
        floor = self.min_size - len(self.slots)
        begun = self._begun(now)
        demand = min(len(self.waiters) - self.checking, self._ramp) - begun
        wanted = min(max(floor, demand), self.max_size - len(self.slots))
        return min(wanted, 1 - begun) if self.failures else wanted

    def _begun(self, now: float) -> int:
        """Return how many creations are under way that seem to get somewhere."""
        if not self.creating:
            return 0
        return sum(slot.state == "create" and now - slot.idle_since < STUCK for slot in self.slots.values())
