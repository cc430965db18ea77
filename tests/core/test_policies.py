"""Eviction policies against naive models, step by step."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from otel_perfopt._core.policies import POLICIES, Entry, Lru, Policy, S3Fifo, make_policy

NEVER = float("inf")


class Value:
    """Something that can be watched dying."""


@contextmanager
def no_collection() -> Iterator[None]:
    """What is freed in here is freed at once, by its last reference, and not by a collection of garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class NaiveLru:
    """LRU with a list, the least recently used first."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def __contains__(self, key: int) -> bool:
        return key in self.keys

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: int, weight: float) -> None:
        """Take a new key."""
        self.keys.append(key)

    def touch(self, key: int) -> None:
        """Note a hit."""
        self.keys.remove(key)
        self.keys.append(key)

    def discard(self, key: int) -> None:
        """Forget a key."""
        self.keys.remove(key)

    def evict(self, *, by_weight: bool) -> int:
        """Choose the victim."""
        return self.keys.pop(0)


class NaiveS3Fifo:
    """Algorithm 1 of the S3-FIFO paper with lists, where the capacity is what is held.

    Until the first eviction, newcomers fill both queues, as in the authors' later implementation.
    """

    def __init__(self) -> None:
        self.small: list[int] = []
        self.main: list[int] = []
        self.ghosts: list[int] = []
        self.filling = True
        self.frequency: dict[int, int] = {}
        self.weight: dict[int, float] = {}

    def __contains__(self, key: int) -> bool:
        return key in self.frequency

    def __len__(self) -> int:
        return len(self.small) + len(self.main)

    def add(self, key: int, weight: float) -> None:
        """Take a new key, into the main queue if its ghost is remembered."""
        self.frequency[key], self.weight[key] = 0, weight
        if key in self.ghosts:
            self.ghosts.remove(key)
            self.main.append(key)
        elif self.filling and 10 * len(self.small) > len(self):
            self.main.append(key)
        else:
            self.small.append(key)

    def touch(self, key: int) -> None:
        """Note a hit."""
        self.frequency[key] = min(3, self.frequency[key] + 1)

    def discard(self, key: int) -> None:
        """Forget a key."""
        (self.small if key in self.small else self.main).remove(key)
        del self.frequency[key], self.weight[key]

    def evict(self, *, by_weight: bool) -> int:
        """Choose the victim."""
        self.filling = False
        while True:
            victim = self._evict_from_small() if self._small_has_its_share(by_weight=by_weight) else self._evict_from_main()
            if victim is not None:
                del self.frequency[victim], self.weight[victim]
                return victim

    def _small_has_its_share(self, *, by_weight: bool) -> bool:
        small, main = (
            sum((Fraction(self.weight[key] if by_weight else 1) for key in queue), Fraction(0))
            for queue in (self.small, self.main)
        )
        return bool(self.small) and (not self.main or small >= Fraction(1, 10) * (small + main))

    def _evict_from_small(self) -> int | None:
        key = self.small.pop(0)
        if self.frequency[key] >= 2:
            self.frequency[key] = 0
            self.main.append(key)
            return None
        self.ghosts.append(key)
        del self.ghosts[: max(0, len(self.ghosts) - max(1, len(self) * 9 // 10))]
        return key

    def _evict_from_main(self) -> int | None:
        key = self.main.pop(0)
        if self.frequency[key] == 0:
            return key
        self.frequency[key] -= 1
        self.main.append(key)
        return None


class PolicyMachine(RuleBasedStateMachine):
    """Drives a policy and its model in step."""

    policy: Policy
    model: NaiveLru | NaiveS3Fifo

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, Entry] = {}
        self.gone: list[Entry] = []
        self.start()

    def start(self) -> None:
        """Set policy and model."""
        raise NotImplementedError

    @rule(key=st.integers(0, 24), weight=st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.25, 8.0]))
    def ask(self, key: int, weight: float) -> None:
        """A request: a hit, or a new entry."""
        if key in self.model:
            self.policy.touch(self.entries[key])
            self.model.touch(key)
        else:
            entry = self.entries[key] = Entry(key, None, NEVER, weight)
            self.policy.add(entry, hash(key))
            self.model.add(key, weight)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def hit(self, data: st.DataObject) -> None:
        """A request for a key that is there."""
        key = data.draw(st.sampled_from(sorted(self.entries)))
        self.policy.touch(self.entries[key])
        self.model.touch(key)

    @precondition(lambda self: len(self.entries) > 4)
    @rule(by_weight=st.booleans(), times=st.integers(1, 4))
    def evict(self, by_weight: bool, times: int) -> None:
        """Both choose the same victims."""
        for _ in range(times):
            entry = self.policy.evict(by_weight=by_weight)
            assert entry.key == self.model.evict(by_weight=by_weight)
            self.gone.append(self.entries.pop(entry.key))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        """An entry leaves by itself."""
        key = data.draw(st.sampled_from(sorted(self.entries)))
        entry = self.entries.pop(key)
        self.policy.discard(entry)
        self.model.discard(key)
        self.gone.append(entry)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """A hit or a discard of an entry that has left changes nothing."""
        entry = data.draw(st.sampled_from(self.gone))
        self.policy.touch(entry)
        self.policy.discard(entry)

    def teardown(self) -> None:
        """Whatever is left goes in the same order."""
        assert len(self.policy) == len(self.model) == len(self.entries)
        while self.entries:
            entry = self.policy.evict()
            assert entry is self.entries.pop(self.model.evict(by_weight=False))
        assert len(self.policy) == 0


class LruMachine(PolicyMachine):
    """LRU."""

    def start(self) -> None:
        """Set policy and model."""
        self.policy, self.model = Lru(), NaiveLru()


class S3FifoMachine(PolicyMachine):
    """S3-FIFO."""

    def start(self) -> None:
        """Set policy and model."""
        self.policy, self.model = S3Fifo(), NaiveS3Fifo()


@pytest.mark.slow
@pytest.mark.timeout(400)  # a failure is made small before it is shown, which takes its time
@pytest.mark.parametrize("machine", [LruMachine, S3FifoMachine])
def test_policy_and_model_choose_the_same_victims(machine: type[PolicyMachine]) -> None:
    """Whatever happens, in whichever order, the policy evicts what its naive model evicts."""
    run_state_machine_as_test(machine)


def filled(policy: Policy, count: int, weight: float = 1.0) -> list[Entry]:
    """Entries 0, 1, 2 ... in a policy."""
    entries = [Entry(key, Value(), NEVER, weight) for key in range(count)]
    for entry in entries:
        policy.add(entry, hash(entry.key))
    return entries


def test_one_hit_wonders_do_not_push_out_what_is_popular() -> None:
    """A scan ten times as long as the cache leaves the popular entries in it."""
    policy = S3Fifo()
    popular = filled(policy, 50)
    for entry in popular:
        policy.touch(entry)
        policy.touch(entry)
    for key in range(1000, 1050):
        policy.add(Entry(key, None, NEVER), key)
    evicted: set[Any] = set()
    for key in range(2000, 3000):
        evicted.add(policy.evict().key)
        policy.add(Entry(key, None, NEVER), key)
    assert not evicted & set(range(50))


def test_a_newcomer_whose_ghost_is_remembered_joins_the_main_queue() -> None:
    """What comes back soon after it left stays longer than the newcomers after it."""
    policy = S3Fifo()
    filled(policy, 10)
    assert policy.evict().key == 0
    policy.add(Entry(0, None, NEVER), 0)
    assert [policy.evict().key for _ in range(9)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert policy.evict().key == 0


def test_ghosts_are_few_and_hold_no_keys() -> None:
    """There are fewer ghosts than entries, however many have left, and they keep nothing alive."""
    policy = S3Fifo()
    filled(policy, 100)
    for key in range(100, 5100):
        policy.evict()
        policy.add(Entry(key, None, NEVER), key)
    assert len(policy) == 100
    assert len(policy._ghosts) <= 90
    assert all(type(ghost) is int for ghost in policy._ghosts)


def test_bug_entries_without_weight_filled_a_cache_for_ever() -> None:
    """Where the count is limited, the queues are measured by count: entries of weight 0 are evicted like others."""
    policy = S3Fifo()
    for entry in filled(policy, 20, weight=0.0):
        policy.touch(entry)
        policy.touch(entry)
    for key in range(100, 130):
        policy.evict()
        policy.add(Entry(key, None, NEVER, 0.0), key)
    left = {policy.evict().key for _ in range(20)}
    assert len(left - set(range(20))) >= 2
    assert len(policy) == 0


def test_bug_rounding_errors_of_weights_outlived_the_entries() -> None:
    """A queue that is empty weighs nothing, also after weights that swallow each other."""
    policy = S3Fifo()
    for weight in (1e20, 1.0, 0.1):
        policy.add(Entry(weight, None, NEVER, weight), hash(weight))
    while len(policy):
        policy.evict(by_weight=True)
    assert policy._small.weight == policy._main.weight == 0.0


@pytest.mark.parametrize("name", POLICIES)
def test_bug_cleared_entries_waited_for_a_garbage_collection(name: str) -> None:
    """When a policy is dropped, its entries and their values die with the last reference, and one that is held holds no other."""
    with no_collection():
        policy = make_policy(name)
        entries = filled(policy, 5)
        values: weakref.WeakSet[Any] = weakref.WeakSet(entry.value for entry in entries)
        held = entries[2]
        del entries, policy
        assert list(values) == [held.value]


@pytest.mark.parametrize("name", POLICIES)
def test_evicted_and_discarded_entries_die_at_once(name: str) -> None:
    """A policy keeps nothing alive that has left it."""
    with no_collection():
        policy = make_policy(name)
        values: weakref.WeakSet[Any] = weakref.WeakSet(entry.value for entry in filled(policy, 6))
        policy.evict()
        policy.discard(policy.evict())
        assert len(values) == len(policy) == 4


@pytest.mark.parametrize("name", ["fifo", "", None, []])
def test_an_unknown_policy_is_refused(name: Any) -> None:
    """The message names the value and the choices."""
    with pytest.raises(ValueError, match="is not known: choose one of 's3fifo', 'lru'") as caught:
        make_policy(name)
    assert repr(name) in str(caught.value)
