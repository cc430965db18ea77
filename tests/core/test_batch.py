"""Batches against a model: what waits, what is due, and that nothing is in two places or in none."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.batch import Batch, Entry
from otel_perfopt._core.batches import Batches


class Promise:
    """The least of a future."""

    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done


def entry(number: int, *, since: float = 0.0, weight: float = 0.0, **options: Any) -> Entry[Promise]:
    return Entry(number, Promise(), since, None, weight, **options)


def batches(**limits: Any) -> Batches[Promise]:
    return Batches(**{"batch_size": 3, "batch_timeout": 10.0, "max_concurrent": 1, **limits})


def items(batch: Batch[Promise] | None) -> list[Any] | None:
    return None if batch is None else [each.item for each in batch.entries]


@dataclass
class Known:
    """What the model knows about one entry."""

    entry: Entry[Promise]
    place: str = "queue"
    deadline: float = math.inf


@dataclass
class KnownBatch:
    """What the model knows about a batch that runs."""

    batch: Batch[Promise]
    members: list[Known] = field(default_factory=list)


class BatchesMachine(RuleBasedStateMachine):
    """Drives the batches and lists of entries in step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.known: list[Known] = []
        self.queue: list[Known] = []
        self.waiting: list[Known] = []
        self.running: list[KnownBatch] = []
        self.flushed_up_to = 0
        self.closed = False
        self.number = 0

    @initialize(
        size=st.sampled_from([1, 2, 3, math.inf]),
        timeout=st.sampled_from([0.0, 1.0, 5.0]),
        concurrent=st.integers(1, 3),
        room=st.sampled_from([3, 5, math.inf]),
        weight=st.sampled_from([4.0, math.inf]),
    )
    def configure(self, size: float, timeout: float, concurrent: int, room: float, weight: float) -> None:
        """Any limits."""
        self.size, self.timeout, self.concurrent, self.room, self.max_weight = size, timeout, concurrent, room, weight
        self.batches: Batches[Promise] = Batches(
            batch_size=size, batch_timeout=timeout, max_concurrent=concurrent, max_queue=room, max_weight=weight
        )

    def forget_the_gone(self) -> None:
        """Those who are gone may still be in the queue, or not; from now on that makes no difference."""
        for known in [known for known in (*self.queue, *self.waiting) if known.entry.future.is_done]:
            (self.queue if known in self.queue else self.waiting).remove(known)
            known.place = "gone"

    def let_in(self) -> None:
        """Fill the queue with those who wait for room."""
        while self.waiting and len(self.queue) < self.room:
            self.queue.append(self.waiting.pop(0))
            self.queue[-1].place = "queue"

    @rule(weight=st.integers(0, 6), limit=st.sampled_from([math.inf, 0.5, 3.0]))
    def add(self, weight: int, limit: float) -> None:
        """An item comes, and waits for room if there is none."""
        self.number += 1
        known = Known(entry(self.number, since=self.now, weight=float(weight)), deadline=self.now + limit)
        is_full = len(self.queue) >= self.room
        assert self.batches.is_full() is is_full
        known.place = "waiting" if is_full else "queue"
        (self.waiting if is_full else self.queue).append(known)
        may_be_due = self.batches.add(known.entry)
        if limit < math.inf:
            self.batches.set_deadline(known.entry, known.deadline)
        assert known.entry.is_waiting is is_full
        assert known.entry.serial == self.number
        self.known.append(known)
        heavy = self.max_weight < math.inf and sum(known.entry.weight for known in self.queue) >= self.max_weight
        if not is_full and (len(self.queue) >= self.size or heavy):
            assert may_be_due

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A caller goes, wherever its item is; without a limit to the queue, nobody tells the batches."""
        live = [known for known in self.known if not known.entry.future.is_done]
        if live:
            data.draw(st.sampled_from(live)).entry.future.is_done = True
            self.somebody_has_gone()

    def somebody_has_gone(self) -> None:
        self.forget_the_gone()
        if self.room < math.inf:
            self.batches.gone += 1
            self.batches.admit()
            self.let_in()

    @rule(by=st.sampled_from([0.25, 1.0, 4.0]))
    def advance(self, by: float) -> None:
        """Time passes."""
        self.now += by

    @rule()
    def expire(self) -> None:
        """Exactly those come out whose time is over, the first to end first."""
        late = [known for known in self.known if known.deadline <= self.now and not known.entry.future.is_done]
        found = []
        while (expired := self.batches.expired(self.now)) is not None:
            expired.future.is_done = True
            found.append(expired.serial)
        assert found == [known.entry.serial for known in sorted(late, key=lambda known: (known.deadline, known.entry.serial))]
        self.somebody_has_gone()

    @rule()
    def take(self) -> None:
        """A batch comes out if one is due, and it is the right one."""
        expected = self.expected()
        taken = self.batches.take(self.now)
        if expected is None:
            assert taken is None
            return
        reason, members = expected
        assert taken is not None
        assert (taken.reason, items(taken)) == (reason, [known.entry.item for known in members])
        self.queue = self.queue[len(members) :]
        for known in members:
            known.place = "running"
        self.running.append(KnownBatch(taken, members))
        self.let_in()

    def expected(self) -> tuple[str, list[Known]] | None:
        """What `take` should return."""
        if not self.queue or len(self.running) >= self.concurrent:
            return None
        members: list[Known] = []
        weight, is_heavy = 0.0, False
        for known in self.queue:
            if len(members) >= self.size:
                break
            if self.max_weight < math.inf and members and weight + known.entry.weight > self.max_weight:
                is_heavy = True
                break
            members.append(known)
            weight += known.entry.weight
        head = members[0].entry
        if len(members) >= self.size:
            return "size", members
        if is_heavy or (self.max_weight < math.inf and weight >= self.max_weight):
            return "weight", members
        if self.closed:
            return "close", members
        if head.serial <= self.flushed_up_to:
            return "manual", members
        return ("timeout", members) if head.since + self.timeout <= self.now else None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A batch begins once."""
        batch = data.draw(st.sampled_from(self.running)).batch
        assert self.batches.begin(batch) is not batch.is_begun or batch.is_begun
        assert not self.batches.begin(batch)

    @precondition(lambda self: self.running)
    @rule()
    def put_back(self) -> None:
        """Whoever took a batch was interrupted; it goes back where it was, and nobody can begin it any more."""
        self.batches.put_back()
        back = [each for each in self.running if not each.batch.is_begun]
        self.running = [each for each in self.running if each.batch.is_begun]
        self.queue += [member for each in back for member in each.members]
        self.queue.sort(key=lambda known: known.entry.serial)
        for known in self.queue:
            known.place = "queue"
        self.forget_the_gone()
        assert not any(self.batches.begin(each.batch) for each in back)

    @precondition(lambda self: any(known.batch.is_begun for known in self.running))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A batch ends, and its callers have their results."""
        known = data.draw(st.sampled_from([known for known in self.running if known.batch.is_begun]))
        for member in known.members:
            member.entry.future.is_done = True
            member.place = "gone"
        self.batches.end(known.batch)
        self.batches.end(known.batch)
        self.running.remove(known)

    @rule()
    def flush(self) -> None:
        """Everything is due that has been added."""
        self.flushed_up_to = self.batches.flush()
        assert self.flushed_up_to == self.number

    @rule()
    def close(self) -> None:
        """Everything is due."""
        self.closed = self.batches.is_closed = True

    @precondition(lambda self: self.batches.queue and not self.waiting)
    @rule()
    def evict(self) -> None:
        """The oldest one goes."""
        self.batches.evict()
        dropped = self.batches.evicted.pop()
        if not dropped.is_gone():
            known = self.queue.pop(0)
            assert dropped is known.entry
            known.place = "gone"
            known.entry.future.is_done = True

    @invariant()
    def places_agree(self) -> None:
        """Every entry that somebody waits for is where the model has it, and the others are in one place at most."""
        if not hasattr(self, "batches"):
            return
        queue, left = self.batches.queue, self.batches.left
        assert [each.item for each in queue if not each.is_gone()] == [known.entry.item for known in self.queue]
        assert [each.item for each in self.batches.waiting if not each.is_gone()] == [known.entry.item for known in self.waiting]
        assert list(self.batches.running) == [known.batch for known in self.running]
        everywhere = [*queue, *self.batches.waiting, *left, *[each for batch in self.batches.running for each in batch.entries]]
        assert len({each.serial for each in everywhere}) == len(everywhere)
        assert all(each.is_gone() for each in left)
        assert len(queue) <= self.room or not self.waiting

    @invariant()
    def marks_agree(self) -> None:
        """A mark is done when everything before it has left; nobody is told so too early."""
        if hasattr(self, "batches"):
            serials = [known.entry.serial for known in self.known if known.place != "gone"]
            is_exact = not any(each.is_gone() for each in (*self.batches.queue, *self.batches.waiting))
            for mark in (0, self.number // 2, self.number):
                is_done = all(serial > mark for serial in serials)
                assert self.batches.is_done(mark) is is_done or not is_exact
                assert is_done or not self.batches.is_done(mark)
            assert self.batches.is_idle() is (not serials) or not is_exact

    @invariant()
    def times_agree(self) -> None:
        """The next time is never later than the first item of a batch that could run, or the first deadline."""
        if hasattr(self, "batches"):
            times = [known.deadline for known in self.known if not known.entry.future.is_done]
            if self.queue and len(self.running) < self.concurrent:
                times.append(self.queue[0].entry.since + self.timeout)
            expected, told = min(times, default=math.inf), self.batches.next_time()
            assert told <= expected
            if not any(each.is_gone() for each in self.batches.queue):
                assert told == expected


def test_batches_follow_the_model() -> None:
    """Whatever is added, cancelled, taken, put back, ended, flushed and dropped."""
    run_state_machine_as_test(BatchesMachine)


def test_a_batch_is_due_when_its_first_item_has_waited() -> None:
    """Not its last one, and not the processor."""
    queue = batches()
    queue.add(entry(1, since=5.0))
    queue.add(entry(2, since=14.0))
    assert queue.next_time() == 15.0
    assert queue.take(14.9) is None
    taken = queue.take(15.0)
    assert taken is not None
    assert (taken.reason, items(taken)) == ("timeout", [1, 2])
    assert queue.next_time() == math.inf


def test_a_timer_may_come_a_rounding_error_early() -> None:
    """It is not set again for the rest, for ever."""
    queue = batches(batch_timeout=0.1)
    queue.add(entry(1, since=0.2))
    assert queue.take(0.2 + 0.1 - 1e-12) is not None


def test_an_item_heavier_than_the_limit_goes_alone() -> None:
    """Not never, and not with others."""
    queue = batches(max_weight=10.0)
    for number, weight in enumerate([1.0, 99.0, 1.0]):
        queue.add(entry(number, weight=weight))
    found = []
    for _ in range(2):
        batch = queue.take(0.0)
        assert batch is not None
        found.append((batch.reason, items(batch)))
        queue.end(batch)
    assert found == [("weight", [0]), ("weight", [1])]
    assert queue.take(0.0) is None


def test_followers_share_an_item_until_it_is_taken() -> None:
    """Equal keys that wait are one item; what runs already may have read what has changed since."""
    queue = batches(batch_size=2)
    first, second, third = (entry(number, key="k") for number in range(3))
    assert not queue.follow(first)
    queue.add(first)
    assert queue.follow(second)
    assert [each.item for each in queue.queue] == [0]
    queue.flush()
    batch = queue.take(0.0)
    assert batch is not None
    assert [each.item for each in batch.entries[0].callers()] == [0, 1]
    assert not queue.follow(third)


def test_an_item_stays_for_its_followers() -> None:
    """The first caller goes, the second one still wants the result."""
    queue = batches()
    first, second = entry(0, key="k"), entry(1, key="k")
    queue.add(first)
    queue.follow(second)
    queue.flush()
    first.future.is_done = True
    batch = queue.take(0.0)
    assert batch is not None
    assert batch.somebody() is second.future
    second.future.is_done = True
    assert batch.somebody() is None


@pytest.mark.parametrize("room", [3, 1, math.inf], ids=["waits for a batch", "waits for room", "without limit"])
def test_nobody_follows_an_item_that_has_left(room: float) -> None:
    """Its caller was gone; who comes with the same key now is a new item."""
    queue = batches(batch_size=10, max_queue=room)
    first, second, third = entry(0, key="other"), entry(1, key="k"), entry(2, key="k")
    queue.add(first)
    queue.add(second)
    second.future.is_done = first.future.is_done = True
    queue.gone = 2
    queue.admit()
    assert not queue.follow(third)


def test_a_key_whose_comparison_raises_leaves_nothing_behind() -> None:
    """Only the item concerned fails."""

    class Bad:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError("no comparison")

    queue = batches()
    queue.add(entry(0, key=Bad()))
    with pytest.raises(ValueError, match="no comparison"):
        queue.follow(entry(1, key=Bad()))
    with pytest.raises(ValueError, match="no comparison"):
        queue.add(entry(1, key=Bad()))
    assert [each.item for each in queue.queue] == [0]
    queue.flush()
    assert items(queue.take(0.0)) == [0]
    assert queue.is_done(2) is False


def test_deadlines_of_those_who_have_their_result_are_forgotten() -> None:
    """However many items have a long timeout."""
    queue = batches(batch_size=1)
    for number in range(1000):
        queue.add(entry(number))
        queue.set_deadline(queue.queue[-1], 1e9)
        batch = queue.take(0.0)
        assert batch is not None
        batch.entries[0].future.is_done = True
        queue.end(batch)
    assert len(queue._deadlines) <= 64
    assert queue.next_time() == math.inf


def test_what_is_added_inside_a_change_only_waits() -> None:
    """A finalizer may add an item while a batch is being taken."""
    queue = batches(batch_size=2)

    class Meddling(Promise):
        def done(self) -> bool:
            if len(queue.queue) < 4:
                queue.add(entry(100 + len(queue.queue)))
                assert queue.take(0.0) is None
                queue.admit()
                queue.evict()
            return self.is_done

    for number in range(2):
        queue.add(Entry(number, Meddling(), 0.0))
    batch = queue.take(0.0)
    assert items(batch) == [0, 1]
    assert [each.item for each in queue.queue] == [102, 103]
    assert not queue.evicted
