"""The store against a dict, and what it must not keep alive."""

import gc
import math
import weakref
from collections.abc import Hashable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.policies import POLICIES, Entry
from otel_perfopt._core.store import SWEEP_PER_PUT, Evicted, Store

KEYS = st.integers(0, 15)
TTLS = st.sampled_from([1.0, 2.0, 5.0, math.inf])
WEIGHTS = st.sampled_from([1.0, 1.0, 2.0, 0.5, 0.0, 4.0, 20.0])


class Value:
    """Something that can be watched dying."""


def key_of(entry: Entry) -> int:
    """The key of an entry of the state machine."""
    assert isinstance(entry.key, int)
    return entry.key


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and a dict in step; all entries that the store must not have any more are let go."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        max_size=st.sampled_from([None, 0, 1, 3, 8]),
        max_weight=st.sampled_from([None, 10.0]),
    )
    def start(self, policy: str, max_size: int | None, max_weight: float | None) -> None:
        """Build the store."""
        gc.disable()  # what dies does so by its last reference
        self.store = Store(policy, max_size=max_size, max_weight=max_weight)
        self.size_limit = math.inf if max_size is None else max_size
        self.weight_limit = math.inf if max_weight is None else max_weight
        self.model: dict[int, Entry] = {}
        self.deadlines: dict[int, float] = {}
        self.groups: list[set[Entry]] = [set(), set()]
        self.values: weakref.WeakSet[Value] = weakref.WeakSet()
        self.now = 0.0

    def teardown(self) -> None:
        """Let garbage be collected again."""
        gc.enable()

    @rule(key=KEYS, ttl=TTLS, weight=WEIGHTS, group=st.sampled_from([None, 0, 1]))
    def put(self, key: int, ttl: float, weight: float, group: int | None) -> None:
        """A new value, perhaps for a key that has one."""
        value = Value()
        self.values.add(value)
        entry = Entry(key, value, self.now + ttl, weight, None if group is None else self.groups[group])
        replaced, evicted = self.store.put(entry, self.now)
        assert replaced is self.model.pop(key, None)
        fits = self.size_limit > 0 and weight <= self.weight_limit
        if self.size_limit > 0 and not fits:
            assert evicted.pop() == Evicted(entry, "weight")
        self.has_evicted(evicted, weight)
        if fits:
            self.model[key], self.deadlines[key] = entry, entry.expires
            assert entry.frequency == (0 if replaced is None else replaced.frequency)
        if fits and ttl != math.inf:
            assert len(self.store._due) <= 2 * len(self.model) + 64

    def has_evicted(self, evicted: Iterable[Evicted], weight: float) -> None:
        """Take what was evicted for a newcomer of this weight out of the model, if it had to go for the reason given."""
        for entry, reason in evicted:
            total = sum(other.weight for other in self.model.values())
            if entry.expires > self.now and len(self.model) >= self.size_limit:
                assert reason == "capacity"
            elif entry.expires > self.now:
                assert reason == "weight"
                assert total + weight > self.weight_limit
            else:
                assert reason == "expired"
            assert self.model.pop(key_of(entry)) is entry

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def hit(self, data: st.DataObject) -> None:
        """A request for a key that is there."""
        self.store.policy.touch(self.model[data.draw(st.sampled_from(sorted(self.model)))])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """An entry is made stale before its time, as an invalidation or the death of an instance does."""
        self.model[data.draw(st.sampled_from(sorted(self.model)))].invalidate()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(limit=st.sampled_from([None, 0, 1, 3]))
    def sweep(self, limit: int | None) -> None:
        """What is due goes, the earliest first."""
        due = sorted(self.deadlines[key] for key in self.model if self.deadlines[key] <= self.now)
        evicted = self.store.sweep(self.now, limit=limit)
        assert [self.deadlines[key_of(entry)] for entry, _ in evicted] == due[:limit]
        self.has_evicted(evicted, 0.0)

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        """A key is forgotten."""
        assert self.store.discard(key) is self.model.pop(key, None)

    @rule(key=KEYS, other=st.booleans())
    def discard_entry(self, key: int, other: bool) -> None:
        """An entry is forgotten, but no other entry of its key."""
        entry = self.model.get(key)
        if entry is None or other:
            self.store.discard_entry(Entry(key, None, math.inf))
        else:
            self.store.discard_entry(self.model.pop(key))

    @rule()
    def clear(self) -> None:
        """Everything is forgotten, and returned."""
        entries, policy, _ = self.store.clear()
        assert entries == self.model
        assert len(policy) == len(self.model)
        self.model.clear()
        for group in self.groups:  # whoever owns them lets go of them
            group.clear()

    @rule(cut_short=st.booleans())
    def rebuild(self, cut_short: bool) -> None:
        """A fork cuts a step short: the policy has let go of an entry that is still there, and the weight is not up to date."""
        if self.model and cut_short:
            self.store.policy.evict()
            self.store.weight = -1.0
        self.store.rebuild()
        self.store.take_dropped()
        self.deadlines = {key: entry.kept_until for key, entry in self.model.items()}

    @rule(count=st.integers(0, 9))
    def sample(self, count: int) -> None:
        """A sample has entries from both ends, none of them twice."""
        sample = self.store.sample(count)
        assert len(set(sample)) == len(sample) == min(count, len(self.model))
        assert set(sample) <= set(self.model.values())

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """Entries, count, policy, weight and groups agree with the model, within the limits."""
        assert self.store.entries == self.model
        assert len(self.store) == len(self.store.policy) == len(self.model) <= self.size_limit
        assert self.store.weight == sum(entry.weight for entry in self.model.values()) <= self.weight_limit
        assert dict(self.store) == {key: entry.value for key, entry in self.model.items()}
        for group in self.groups:
            assert group == {entry for entry in self.model.values() if entry.group is group}

    @invariant()
    def keeps_nothing_else_alive(self) -> None:
        """Values that were replaced, evicted, discarded or cleared are dead, without a collection of garbage."""
        assert set(self.values) == {entry.value for entry in self.model.values()}


@pytest.mark.slow
@pytest.mark.timeout(400)  # a failure is made small before it is shown, which takes its time
def test_store_and_dict_agree() -> None:
    """Whatever happens, in whichever order, the store holds what a dict would hold, and returns what it gives up."""
    try:
        run_state_machine_as_test(StoreMachine, settings=settings(max_examples=300))
    finally:
        gc.enable()


def put(store: Store, key: Hashable, *, now: float = 0.0, ttl: float = math.inf, **options: Any) -> list[Evicted]:
    """Put a new entry and return what was evicted."""
    return store.put(Entry(key, str(key), now + ttl, **options), now)[1]


def reasons(evicted: Iterable[Evicted]) -> list[tuple[Hashable, str]]:
    """Keys and reasons."""
    return [(entry.key, reason) for entry, reason in evicted]


def test_reasons() -> None:
    """An entry leaves for lack of room, by count or by weight, or because its time was over."""
    store = Store("lru", max_size=2, max_weight=10.0)
    assert put(store, "a", weight=4.0) == []
    assert put(store, "b", weight=4.0, ttl=1.0) == []
    assert reasons(put(store, "c", weight=1.0)) == [("a", "capacity")]
    assert reasons(put(store, "d", weight=9.5, now=2.0)) == [("b", "expired"), ("c", "weight")]
    assert reasons(put(store, "e", weight=10.5)) == [("e", "weight")]
    assert list(store.entries) == ["d"]


def test_a_stale_entry_that_is_evicted_counts_as_expired() -> None:
    """What nobody could have hit any more was not evicted for lack of room."""
    store = Store("lru", max_size=1, max_weight=None)
    put(store, "a")
    store.entries["a"].make_stale()
    assert reasons(put(store, "b")) == [("a", "expired")]


def test_expiry_begins_on_the_dot() -> None:
    """An entry is swept, or evicted as expired, from the moment at which it is not fresh any more."""
    store = Store("lru", max_size=None, max_weight=10.0)
    put(store, "a", ttl=5.0)
    assert store.sweep(math.nextafter(5.0, 0.0)) == []
    assert reasons(store.sweep(5.0)) == [("a", "expired")]
    for key in range(SWEEP_PER_PUT + 1):
        put(store, key, ttl=5.0)
    assert {reason for _, reason in put(store, "b", weight=10.0, now=5.0)} == {"expired"}
    assert list(store.entries) == ["b"]


def test_weight_is_shared_by_weight_and_room_by_count() -> None:
    """Where weight is short, a few heavy newcomers make room for each other, and many light popular entries stay."""
    store = Store("s3fifo", max_size=None, max_weight=100.0)
    for key in range(50):
        put(store, key)
        for _ in range(3):
            store.policy.touch(store.entries[key])
    evicted = [key for number in range(200) for key, _ in reasons(put(store, f"heavy {number}", weight=9.0))]
    assert len(evicted) > 190
    assert all(isinstance(key, str) for key in evicted)


def test_a_store_of_size_0_keeps_nothing() -> None:
    """Nothing is kept, and nothing was evicted."""
    store = Store("s3fifo", max_size=0, max_weight=None)
    assert put(store, "a") == []
    assert (len(store), store.weight) == (0, 0.0)


def test_too_heavy_a_value_also_ends_the_old_one() -> None:
    """A value that is not kept must not leave the value before it in place."""
    store = Store("s3fifo", max_size=None, max_weight=5.0)
    put(store, "a")
    replaced, evicted = store.put(Entry("a", "heavy", math.inf, 6.0), 0.0)
    assert replaced is not None
    assert (replaced.value, reasons(evicted), len(store)) == ("a", [("a", "weight")], 0)


def test_a_put_sweeps_a_little() -> None:
    """Each put removes a few of the entries that are due, never all at once."""
    store = Store("s3fifo", max_size=None, max_weight=None)
    for key in range(10):
        put(store, key, ttl=1.0 + key)
    assert [key for key, _ in reasons(put(store, "new", now=100.0))] == list(range(SWEEP_PER_PUT))


def test_a_key_put_again_and_again_leaves_no_trail() -> None:
    """The heap of deadlines and the keys in it stay few, however often a value is replaced."""
    store = Store("s3fifo", max_size=None, max_weight=None)
    for number in range(10_000):
        put(store, number % 3, ttl=300.0, now=number / 1000)
        assert len(store._due) <= 2 * 3 + 64


def test_a_replaced_value_is_not_swept_at_the_old_deadline() -> None:
    """The deadline that counts is the entry's own, also when the key had another one."""
    store = Store("s3fifo", max_size=None, max_weight=None)
    put(store, "a", ttl=1.0)
    put(store, "a", ttl=9.0)
    assert store.sweep(5.0) == []
    put(store, "a")
    assert store.sweep(1e9) == []


def test_popularity_survives_a_new_value() -> None:
    """A reload does not make a popular key a newcomer without hits."""
    store = Store("s3fifo", max_size=3, max_weight=None)
    put(store, "a")
    for _ in range(2):
        store.policy.touch(store.entries["a"])
    put(store, "a")
    for key in "bcdefg":
        put(store, key)
    assert "a" in store.entries


def test_cleared_keys_are_let_go() -> None:
    """Keys of cleared entries do not wait for their deadlines."""
    store = Store("s3fifo", max_size=None, max_weight=None)
    key = Value()
    watched = weakref.ref(key)
    store.put(Entry(key, None, 5.0), 0.0)
    del key
    store.clear()
    store.take_dropped()  # the caller lets go of them, without its lock
    assert watched() is None


@pytest.mark.parametrize("policy", POLICIES)
def test_bug_cleared_values_waited_for_a_garbage_collection(policy: str) -> None:
    """When what `clear` returned is dropped, all values die at once."""
    store = Store(policy, max_size=None, max_weight=None)
    values: weakref.WeakSet[Value] = weakref.WeakSet()
    gc.disable()
    try:
        for key in range(5):
            value = Value()
            values.add(value)
            store.put(Entry(key, value, 1.0), 0.0)
        del value
        assert len(values) == 5
        store.clear()
        assert len(values) == 0
    finally:
        gc.enable()


def test_keys_that_cannot_be_ordered() -> None:
    """Deadlines that are equal do not compare keys."""
    store = Store("s3fifo", max_size=None, max_weight=None)
    keys: list[Hashable] = [None, 1, "a", (2, None), frozenset()]
    for key in keys:
        put(store, key, ttl=1.0)
    assert [entry.key for entry, _ in store.sweep(1.0)] == keys


def test_an_entry_may_be_put_again() -> None:
    """The same object, put twice, is one entry."""
    store = Store("lru", max_size=2, max_weight=None)
    entry = Entry("a", 1, 5.0)
    assert store.put(entry, 0.0) == (None, [])
    assert store.put(entry, 0.0) == (entry, [])
    assert (len(store), store.weight, reasons(store.sweep(5.0))) == (1, 1.0, [("a", "expired")])
