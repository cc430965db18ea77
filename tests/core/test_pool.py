"""The state machine of pools: rule by rule, and all rules in any order."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.pool import MISSING, STUCK, PoolState
from otel_perfopt._core.slots import Hold, Job, Slot, Waiter

OPTIONS: dict[str, Any] = {
    "min_size": 0,
    "max_size": 2,
    "max_waiting": None,
    "idle_timeout": 100.0,
    "lifo": True,
    "checks": False,
    "resets": False,
    "make_slot": Slot,
}


def new_state(**options: Any) -> PoolState[Slot]:
    """Make a state."""
    return PoolState(**{**OPTIONS, **options})


def join(core: PoolState[Slot], now: float = 0.0) -> Waiter[Slot]:
    """Let somebody stand in line."""
    waiter: Waiter[Slot] = Waiter(lambda: None)
    assert core.join(now, waiter)
    return waiter


def with_one_idle(**options: Any) -> PoolState[Slot]:
    """Make a state with one idle slot."""
    core = new_state(**options)
    waiter = join(core)
    core.created(0.0, core.jobs.popleft().slot, 1000.0)
    assert waiter.slot is not None
    core.give_back(0.0, core.lent.pop(waiter.lease))
    if core.jobs:
        core.was_reset(0.0, core.jobs.popleft().slot)
    assert len(core.idle) == 1
    return core


def test_take_and_rest() -> None:
    """The short way: no line, no job."""
    core = with_one_idle()
    hold: Hold[Slot] = Hold()
    assert core.take(1.0, hold)
    assert (list(core.idle), core.lent, core.jobs) == ([], {hold.lease: hold.slot}, type(core.jobs)())
    assert not core.take(1.0, Hold())
    slot = core.lent.pop(hold.lease)
    assert core.rest(2.0, slot) is True
    assert (list(core.idle), slot.idle_since) == ([slot], 2.0)


@pytest.mark.parametrize("why", ["expired", "waiter", "resets", "too many"])
def test_rest_is_not_possible(why: str) -> None:
    """Then it has to be given back the long way."""
    core = with_one_idle(resets=why == "resets")
    hold: Hold[Slot] = Hold()
    assert core.take(1.0, hold)
    slot = core.lent.pop(hold.lease)
    if why == "waiter":
        join(core)
    elif why == "too many":
        core.max_size = 0
    assert core.rest(1e6 if why == "expired" else 1.0, slot) is False


def test_rest_tells_of_what_came_meanwhile() -> None:
    """A waiter who came in between has to be served by a sweep."""
    core = with_one_idle()
    hold: Hold[Slot] = Hold()
    core.take(1.0, hold)
    slot = core.lent.pop(hold.lease)

    class Idle(type(core.idle)):  # type: ignore[misc]
        def append(self, slot: Slot) -> None:
            super().append(slot)
            core.waiters[Waiter(lambda: None)] = None

    core.idle = Idle()
    assert core.rest(1.0, slot) is None


def test_missing_slot_is_given_up() -> None:
    """What is neither idle nor lent for so long, over two sweeps, is lost, and its place is free."""
    core = with_one_idle()
    core.idle.clear()
    core.sweep(10.0)
    core.sweep(10.0 + MISSING - 0.1)
    assert len(core.slots) == 1
    core.sweep(10.0 + MISSING)
    assert (core.slots, [(job.kind, job.slot.reason) for job in core.jobs]) == ({}, [("dispose", "lost")])


def test_slot_in_the_hand_of_somebody_is_not_missing() -> None:
    """Each sweep that finds it, or finds it lent again, begins anew."""
    core = with_one_idle()
    slot = core.idle.pop()
    core.sweep(0.0)
    core.idle.append(slot)
    core.sweep(MISSING)
    core.idle.clear()
    core.sweep(MISSING + 1)
    slot.lease += 1
    core.sweep(2 * MISSING + 5)
    assert len(core.slots) == 1


def test_stuck_creation_is_not_counted_on() -> None:
    """Another one is begun beside it, within the limit."""
    core = new_state()
    for now in (0.0, STUCK - 0.1, STUCK, 2 * STUCK, 3 * STUCK):
        waiter = join(core, now)
        core.leave(now, waiter)
    assert core.creating == len(core.slots) == 2


def test_bug_failures_at_once_are_retried_as_one() -> None:
    """Each of them sets a timer, but what counts is the last: else there would be as many rows of attempts for ever."""
    core = new_state(min_size=3, max_size=3)
    core.open(0.0)
    for delay in (1.0, 2.0, 4.0):
        core.failed(0.0, core.jobs.popleft().slot, OSError(), delay)
    core.retry(1.0)
    core.retry(2.0)
    assert (core.jobs, core.creating) == (type(core.jobs)(), 0)
    core.retry(4.0)
    assert core.creating == 1


def test_repair_brings_back_what_an_interruption_lost() -> None:
    """Jobs that nobody has begun, counts, and a waiter who was not woken."""
    core = new_state(min_size=1)
    core.open(0.0)
    core.jobs.clear()
    core.creating = 7
    core.repair(0.0)
    assert ([job.kind for job in core.jobs], core.creating) == (["create"], 1)
    woken: list[str] = []
    waiter: Waiter[Slot] = Waiter(lambda: woken.append("woken"))
    core.waiters[waiter] = None
    slot = core.slots[0]
    slot.state, waiter.slot, waiter.lease = "ready", slot, 9
    core.jobs.clear()
    core.repair(0.0)
    assert (woken, list(core.waiters), core.lent) == (["woken"], [], {9: slot})


class PoolMachine(RuleBasedStateMachine):
    """Callers, jobs and time in any order."""

    @initialize(
        min_size=st.integers(0, 2),
        more=st.integers(0, 1),
        max_waiting=st.none() | st.integers(0, 3),
        lifo=st.booleans(),
        checks=st.booleans(),
        resets=st.booleans(),
    )
    def begin(self, min_size: int, more: int, max_waiting: int | None, **options: bool) -> None:
        """Make one."""
        self.max_waiting = max_waiting
        self.core = new_state(min_size=min_size, max_size=max(1, min_size + more), max_waiting=max_waiting, **options)
        self.now = 0.0
        self.checks = options["checks"]
        self.limit = self.core.max_size
        self.line: list[Waiter[Slot]] = []
        self.holds: list[tuple[int, Slot]] = []
        self.granted: list[Waiter[Slot]] = []
        self.jobs: list[Job] = []

    def look(self) -> None:
        """Begin the jobs that came of a step, and see who was served: always the first in line."""
        while self.core.jobs:
            job = self.core.jobs.popleft()
            if not job.slot.is_started and job.slot.state == ("gone" if job.kind == "dispose" else job.kind):
                job.slot.is_started = True
                self.jobs.append(job)
        served = [waiter for waiter in self.line if waiter.slot is not None or waiter.error is not None]
        assert served == self.line[: len(served)]
        del self.line[: len(served)]
        self.granted += [waiter for waiter in served if waiter.slot is not None]
        assert [*self.core.waiters] == self.line

    @rule()
    def take(self) -> None:
        """Somebody comes, and passes nobody in line."""
        hold: Hold[Slot] = Hold()
        if self.core.take(self.now, hold):
            assert not self.line
            assert hold.slot is not None
            assert hold.slot.expires > self.now
            self.holds.append((hold.lease, hold.slot))

    @rule()
    def join(self) -> None:
        """Somebody stands in line, unless it is full."""
        waiter: Waiter[Slot] = Waiter(lambda: None)
        if self.core.is_closed:
            return
        before = len(self.line)
        if self.core.join(self.now, waiter):
            self.line.append(waiter)
        else:
            assert self.max_waiting is not None
            assert before >= self.max_waiting
        self.look()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody leaves the line."""
        waiter = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        self.core.leave(self.now, waiter)
        self.look()

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), accept=st.booleans())
    def accept(self, data: st.DataObject, accept: bool) -> None:
        """Somebody who was served notices, or has gone."""
        waiter = self.granted.pop(data.draw(st.integers(0, len(self.granted) - 1)))
        assert waiter.slot is not None
        if accept:
            self.holds.append((waiter.lease, waiter.slot))
            waiter.slot = None
        self.core.leave(self.now, waiter)
        self.core.leave(self.now, waiter)  # a second time does nothing
        self.look()

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), how=st.sampled_from(["rest", "give back", "give up"]))
    def end_lease(self, data: st.DataObject, how: str) -> None:
        """Somebody returns what it has."""
        lease, slot = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        assert self.core.lent.pop(lease) is slot
        rests = self.core.rest(self.now, slot) if how == "rest" else False
        if rests is None:
            self.core.sweep(self.now)
        elif rests is False and how == "give up":
            self.core.give_up(self.now, slot, "requested")
        elif rests is False:
            self.core.give_back(self.now, slot)
        self.look()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), success=st.booleans())
    def end_job(self, data: st.DataObject, success: bool) -> None:
        """A function of the user's returns or raises."""
        job = self.jobs.pop(data.draw(st.integers(0, len(self.jobs) - 1)))
        self.finish(job, success=success)
        self.look()

    @rule()
    def let_everything_work(self) -> None:
        """Every job succeeds, and everybody who is served notices."""
        for job in [self.jobs.pop() for _ in range(len(self.jobs))]:
            self.finish(job, success=True)
        self.look()
        for waiter in self.granted:
            assert waiter.slot is not None
            self.holds.append((waiter.lease, waiter.slot))
            waiter.slot = None
        self.granted.clear()

    def finish(self, job: Job, *, success: bool) -> None:
        """Tell the outcome of a job."""
        core, slot = self.core, job.slot
        if job.kind == "dispose":
            core.leaving.remove(slot)
        elif job.kind == "create" and success:
            core.created(self.now, slot, 1000.0)
        elif job.kind == "create":
            core.failed(self.now, slot, OSError(), 5.0)
        elif not success:
            core.give_up(self.now, slot, "invalid" if job.kind == "check" else "reset")
        else:
            (core.checked if job.kind == "check" else core.was_reset)(self.now, slot)

    @rule(seconds=st.sampled_from([0.1, 5.0, 20.0, 150.0, 2000.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(what=st.sampled_from(["open", "retry", "sweep", "drain", "repair"]))
    def change(self, what: str) -> None:
        """Something that a shell does now and then."""
        core = self.core
        if what == "drain":
            core.expire_all(self.now, "drain")
        elif what != "open" or not core.is_closed:
            getattr(core, what)(self.now)
        self.look()

    @rule(size=st.integers(1, 4))
    def resize(self, size: int) -> None:
        """The limit changes; what is too many goes by and by."""
        self.limit = len(self.core.slots)
        self.core.resize(self.now, max(size, self.core.min_size))
        self.look()

    @precondition(lambda self: self.now > 500)
    @rule()
    def close(self) -> None:
        """The pool is closed."""
        self.core.close(self.now, RuntimeError)
        self.look()
        assert not self.core.waiters
        assert not self.core.idle

    @invariant()
    def slots_are_in_one_place(self) -> None:
        """Idle, lent, or looked after by exactly one job; the counts agree, and the limit is kept."""
        core = self.core
        idle, lent = list(core.idle), list(core.lent.values())
        jobs = [job.slot for job in self.jobs if job.kind != "dispose"]
        assert sorted(slot.number for slot in (*idle, *lent, *jobs)) == sorted(core.slots)
        assert {slot.number for slot in jobs} == {slot.number for slot in core.slots.values() if slot.state != "ready"}
        assert {job.slot for job in self.jobs if job.kind == "dispose"} == core.leaving
        assert core.creating == sum(slot.state == "create" for slot in core.slots.values())
        assert core.checking == sum(slot.state == "check" for slot in core.slots.values())
        self.limit = min(self.limit, len(core.slots))
        assert len(core.slots) <= max(core.max_size, self.limit)

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        """While something is idle, nobody is in line for whom nothing is being validated."""
        core = self.core
        assert not core.idle or len(core.waiters) <= core.checking
        if core.waiters and not core.is_closed and core.retry_at is None and len(core.slots) < core.max_size:
            assert core.creating + core.checking > 0

    def teardown(self) -> None:
        """In the end everything is returned and every job succeeds: then the floor is there, or nothing if it was closed."""
        if not hasattr(self, "core"):
            return
        core = self.core
        self.now += 100
        core.retry(self.now)
        core.open(self.now) if not core.is_closed else None
        self.look()
        rounds = 0
        while self.jobs or self.line or self.granted or self.holds:
            rounds += 1
            assert rounds < 100, "somebody is left waiting"
            self.let_everything_work()
            for lease, slot in self.holds:
                assert core.lent.pop(lease) is slot
                core.give_back(self.now, slot)
            self.holds.clear()
            self.look()
        assert (len(core.slots) == 0) if core.is_closed else (core.min_size <= len(core.slots) <= core.max_size)
        assert len(core.idle) == len(core.slots)
        assert not core.is_closed or core.is_empty()


@pytest.mark.slow
@pytest.mark.timeout(400)  # a failure is made small before it is shown, which takes its time
def test_rules_hold_in_any_order() -> None:
    """Nothing is lost, nothing is lent twice, nobody is passed, and nobody is left waiting."""
    run_state_machine_as_test(PoolMachine)
