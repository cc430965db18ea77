"""Batches: what waits for one, when one is due, and who still waits for a result.

Items wait in a queue until a batch of them is due: because there are enough of them, because they weigh enough, because the
first one has waited long enough, or because somebody asks for it. With a limit to the queue, further items wait for room.

A finalizer or a signal may interrupt any call. Hence what is moved from one place to another is moved without a call in
between, and inside a change others may only append.
"""

import heapq
import math
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from otel_perfopt._core.batch import Batch, Entry, Future, Reason
from otel_perfopt.unset import UNSET

__all__ = ("Batches",)

SLACK = 1e-6  # seconds that a timer may come too early, for rounding

F = TypeVar("F", bound=Future)


class Batches(Generic[F]):
    """The items of one processor, from the moment they are added until their batch has ended.

    Args:
        batch_size: the most items of a batch.
        batch_timeout: seconds after which the first item of the queue makes a batch due.
        max_concurrent: the most batches that run at once.
        max_queue: the most items in the queue.
        max_weight: the most weight of a batch; an item that is heavier has a batch of its own.

    Attributes:
        queue: what waits for a batch, in order.
        waiting: what waits for room in the queue, in order.
        running: the batches that were taken and have not ended.
        left: entries that nobody waited for any more when their turn came; for the shell to take away.
        evicted: entries that were dropped for newer ones; for the shell to take away.
        gone: how many callers have gone since the queue was last searched for such.
        is_closed: whether everything is due.
    """

    def __init__(
        self,
        *,
        batch_size: float,
        batch_timeout: float,
        max_concurrent: int,
        max_queue: float = math.inf,
        max_weight: float = math.inf,
    ) -> None:
        self._batch_size = batch_size
        self._most = None if batch_size == math.inf else int(batch_size)
        self._batch_timeout = batch_timeout
        self._max_concurrent = max_concurrent
        self._max_queue = max_queue
        self._max_weight = max_weight
        self._is_weighed = max_weight < math.inf
        self.queue: list[Entry[F]] = []
        self.waiting: list[Entry[F]] = []
        self.running: dict[Batch[F], None] = {}
        self.left: list[Entry[F]] = []
        self.evicted: list[Entry[F]] = []
        self.gone = 0
        self.is_closed = False
        self._weight = 0.0
        self._keys: dict[Hashable, Entry[F]] = {}
        self._deadlines: list[tuple[float, int, Entry[F]]] = []
        self._compact_at = 64
        self._serial = 0
        self._due_up_to = 0
        self._is_changing = False

    # in -------------------------------------------------------------------------------------------------

    def add(self, entry: Entry[F]) -> bool:
        """Queue an entry, or let it wait for room; return whether a batch may be due by its size or weight."""
        if entry.key is not UNSET:
            self._keys[entry.key] = entry  # may run user code, which may raise: nothing has changed yet
        self._serial = entry.serial = self._serial + 1
        count = len(self.queue) + 1
        if count > self._max_queue:
            entry.is_waiting = True
            self.waiting.append(entry)
            return False
        self.queue.append(entry)
        if self._is_weighed:
            self._weight += entry.weight
            return count >= self._batch_size or self._weight >= self._max_weight
        return count >= self._batch_size

    def follow(self, entry: Entry[F]) -> bool:
        """Let an entry share the item of one with the same key that waits; return whether there is one."""
        found = self._keys.get(entry.key)
        if found is None or found.key is UNSET:  # the latter has left
            return False
        self._serial = entry.serial = self._serial + 1
        if found.followers is None:
            found.followers = []
        found.followers += (entry,)
        return True

    def set_deadline(self, entry: Entry[F], deadline: float) -> None:
        """Have `expired` return this entry when its time is over."""
        if len(self._deadlines) >= self._compact_at:
            serial = self._serial
            live = sorted(each for each in self._deadlines if not each[2].future.done())
            if serial == self._serial:  # no finalizer has added one meanwhile
                self._deadlines, self._compact_at = live, 2 * len(live) + 64  # a sorted list is a heap
        heapq.heappush(self._deadlines, (deadline, entry.serial, entry))

    def is_full(self) -> bool:
        """Whether a new entry would have to wait for room."""
        if len(self.queue) >= self._max_queue and self.gone:
            self.admit()
        return bool(self.waiting) or len(self.queue) >= self._max_queue

    def evict(self) -> None:
        """Drop the oldest entry of the queue."""
        if self.queue and not self._is_changing:
            self._forget(self.queue[:1])
            self._weight -= self.queue[0].weight
            self.evicted += self.queue[:1]
            del self.queue[:1]

    def admit(self) -> None:
        """Let those in who wait for room, as far as there is some, after those have been taken out who are gone."""
        if self._is_changing:
            return
        self._is_changing = True
        try:
            if self.gone:
                self.gone = 0
                self._clear_out()
            while self.waiting and len(self.queue) < self._max_queue:
                entry = self.waiting[0]
                if entry.is_gone():
                    self._forget((entry,))
                    self.left += (entry,)
                else:
                    self.queue += (entry,)
                    self._weight += entry.weight
                del self.waiting[0]
                entry.is_waiting = False
        finally:
            self._is_changing = False

    # out ------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Batch[F] | None:
        """Return the next batch if one is due and may run now; `end` it, or `put_back` if nobody can `begin` it."""
        if self.gone or self.waiting:
            self.admit()
        queue = self.queue
        if not queue or len(self.running) >= self._max_concurrent or self._is_changing:
            return None
        if self._reason(len(queue), self._weight, queue[0], now) is None:
            return None
        self._is_changing = True
        try:
            batch = self._take(now)
        finally:
            self._is_changing = False
        if self.waiting:
            self.admit()
        return batch

    def begin(self, batch: Batch[F]) -> bool:
        """Return whether to run a batch that was taken: not if it was put back, or given up, meanwhile."""
        if batch.is_begun or batch not in self.running:
            return False
        batch.is_begun = True
        return True

    def put_back(self) -> None:
        """Queue again what was taken and not begun; whoever took it was interrupted."""
        for batch in [batch for batch in self.running if not batch.is_begun]:
            self.queue[:0] = batch.entries
            del self.running[batch]
        self.queue.sort(key=lambda entry: entry.serial)
        self.gone += 1  # some may have gone meanwhile
        self._weight = sum(entry.weight for entry in self.queue)

    def end(self, batch: Batch[F]) -> None:
        """Note that a batch has ended, and its callers have their results."""
        self.running.pop(batch, None)

    def flush(self) -> int:
        """Make everything due that was added so far; return a mark for `is_done`."""
        self._due_up_to = self._serial
        return self._serial

    def is_done(self, mark: int) -> bool:
        """Whether everything that was added before this mark has left."""
        heads = [entries[0].serial for entries in (self.queue, self.waiting) if entries]
        return min((*heads, *[batch.serial for batch in self.running]), default=math.inf) > mark

    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.queue or self.waiting or self.running)

    def everything(self) -> Iterator[Entry[F]]:
        """Yield every entry that has not left."""
        for entries in (self.queue[:], self.waiting[:], *[batch.entries for batch in list(self.running)]):
            yield from entries

    def clear(self) -> None:
        """Forget every entry and every batch."""
        self.queue.clear()
        self.waiting.clear()
        self.running.clear()
        self._keys.clear()
        self._deadlines.clear()
        self._weight = 0.0

    # time -----------------------------------------------------------------------------------------------

    def next_time(self) -> float:
        """Return when to look for a batch that is due or an entry whose time is over; infinity for never."""
        due = math.inf
        if self.queue and len(self.running) < self._max_concurrent:
            due = self.queue[0].since + self._batch_timeout
        self._drop_deadlines()
        return min(due, self._deadlines[0][0]) if self._deadlines else due

    def expired(self, now: float) -> Entry[F] | None:
        """Return an entry whose time is over and that still waits; the next one when that is done."""
        self._drop_deadlines()
        if self._deadlines and self._deadlines[0][0] <= now + SLACK:
            return self._deadlines[0][2]
        return None

    # the steps of these ---------------------------------------------------------------------------------

    def _reason(self, count: int, weight: float, head: Entry[F], now: float) -> Reason | None:
        if count >= self._batch_size:
            return "size"
        if weight >= self._max_weight:
            return "weight"
        if self.is_closed:
            return "close"
        if head.serial <= self._due_up_to:
            return "manual"
        return "timeout" if head.since + self._batch_timeout <= now + SLACK else None

    def _take(self, now: float) -> Batch[F] | None:
        entries, left, weight, is_heavy = self._select()
        reason = self._reason(len(entries), math.inf if is_heavy else weight, entries[0], now) if entries else None
        scanned = len(entries) + len(left)
        lost = sum(entry.weight for entry in left) if left else 0.0
        self._forget(left)
        if reason is None:  # those who are gone made it look due
            self.left += left
            self.queue[:scanned] = entries
            self._weight -= lost
        else:
            batch = Batch(entries, reason)
            self.running[batch] = None
            self.left += left
            del self.queue[:scanned]
            self._weight -= weight + lost
            self._forget(entries)
        if not self.queue:
            self._weight = 0.0  # without what rounding has left
        return None if reason is None else batch

    def _select(self) -> tuple[list[Entry[F]], list[Entry[F]], float, bool]:
        """Return what could be the next batch, and what nobody waits for; the former's weight, and whether more is too much."""
        if not self._is_weighed:
            entries = self.queue[: self._most]
            if not any([entry.future.done() for entry in entries]):  # noqa: C419 - a generator is slower
                return entries, [], 0.0, False
        entries, left, weight = [], [], 0.0
        for entry in self.queue:
            if entry.future.done() and entry.is_gone():
                left.append(entry)
            elif len(entries) >= self._batch_size:
                break
            elif entries and weight + entry.weight > self._max_weight:
                return entries, left, weight, True
            else:
                entries.append(entry)
                weight += entry.weight
        return entries, left, weight, False

    def _clear_out(self) -> None:
        """Take out of the queue what nobody waits for."""
        live: list[Entry[F]] = []
        left: list[Entry[F]] = []
        count = len(self.queue)
        for entry in self.queue[:count]:
            (left if entry.is_gone() else live).append(entry)
        self._forget(left)
        self.left += left
        self.queue[:count] = live
        self._weight = sum(entry.weight for entry in self.queue)

    def _forget(self, entries: Iterable[Entry[F]]) -> None:
        """Let nobody follow entries that leave."""
        for entry in entries if self._keys else ():
            key = entry.key
            if key is not UNSET:
                entry.key = UNSET
                try:
                    if self._keys.get(key) is entry:
                        self._keys.pop(key, None)
                except Exception:  # noqa: BLE001, S110 - comparing keys is user code; what stays behind is never followed
                    pass

    def _drop_deadlines(self) -> None:
        while self._deadlines and self._deadlines[0][2].future.done():
            heapq.heappop(self._deadlines)
