"""@cached on methods: the entries of an instance live as long as it does, and not a moment longer."""

import copy
import dataclasses
import gc
import pickle
import weakref
from typing import Any, NamedTuple

import pytest

from otel_perfopt import cached
from tests.cache.support import no_collection, run


class Account:
    """Has cached methods of several kinds."""

    def __init__(self, number: int, balance: int) -> None:
        self.number, self.balance = number, balance

    @cached
    def report(self, currency: str = "EUR") -> str:
        """Return the balance."""
        return f"{self.balance} {currency}"

    @cached
    async def report_later(self) -> int:
        """Return the balance."""
        return self.balance

    @property
    @cached
    def total(self) -> int:
        """The balance."""
        return self.balance

    @cached
    def fails(self) -> None:
        """Raise."""
        raise OSError(self.balance)


ACCOUNT: Any = Account  # for uses that a type checker cannot follow


def test_an_instance_dies_by_its_references_alone() -> None:
    """Its entries do not keep it: neither values nor errors, of methods, coroutine methods and properties."""
    with no_collection():
        account = Account(1, 10)
        account.report()
        assert account.total == 10
        assert run(account.report_later()) == 10
        with pytest.raises(OSError, match="10"):
            account.fails()
        reference = weakref.ref(account)
        del account
        assert reference() is None


def test_an_error_of_a_coroutine_method_does_not_keep_its_instance() -> None:
    """Neither the error's frames nor the task keep it."""

    class Failing:
        @cached
        async def fail(self) -> None:
            raise OSError("down")

    async def main() -> weakref.ref[Any]:
        thing = Failing()
        reference = weakref.ref(thing)
        with pytest.raises(OSError, match="down"):
            await thing.fail()
        return reference

    with no_collection():
        assert run(main())() is None


def test_values_of_a_dead_instance_are_dropped_by_the_next_store() -> None:
    """What a dead instance left is gone when the method's cache next stores something."""
    with no_collection():
        for number in range(5):
            Account(number, number).report()
        last = Account(9, 9)
        last.report()
        cache: Any = ACCOUNT.report.cache
        assert len(cache) == 1


def test_a_reused_identity_never_shows_an_old_value() -> None:
    """Objects made and dropped in a loop get each other's addresses, and only their own values."""
    identities = set()
    for number in range(3000):
        account = Account(0, number)
        identities.add(id(account))
        assert account.report() == f"{number} EUR"
        assert account.total == number
    assert len(identities) < 3000, "no identity was reused: this shows nothing"


def test_a_reused_identity_after_a_collection_never_shows_an_old_value() -> None:
    """The same for instances in cycles, that the garbage collector finds and whose finalizers call the method."""
    seen = []

    class Node:
        def __init__(self, number: int) -> None:
            self.number, self.me = number, self

        @cached
        def value(self) -> int:
            return self.number

        def __del__(self) -> None:
            seen.append(self.value() == self.number)

    identities = set()
    for number in range(400):
        node = Node(number)
        identities.add(id(node))
        assert node.value() == number
        if number % 10 == 0:
            gc.collect()
    del node
    gc.collect()
    assert (len(seen), all(seen)) == (400, True)
    assert len(identities) < 400, "no identity was reused: this shows nothing"


def test_copies_have_their_own_entries() -> None:
    """copy, deepcopy and pickle make new instances; dataclasses.replace, too."""
    original = Account(1, 10)
    assert original.report() == "10 EUR"
    makers: list[Any] = [copy.copy, copy.deepcopy, lambda account: pickle.loads(pickle.dumps(account))]
    for make in makers:
        other = make(original)
        other.balance = 99
        assert other.report() == "99 EUR"
    assert original.report() == "10 EUR"


def test_slots_without_a_weak_reference_are_explained() -> None:
    """The message says what to add; with key= it works; with __weakref__ it works."""

    @dataclasses.dataclass(slots=True)
    class Slotted:
        number: int

        @cached
        def method(self) -> int:
            return self.number

        @cached(key=lambda self: self.number)
        def keyed(self) -> int:
            return self.number

    @dataclasses.dataclass(slots=True, weakref_slot=True)
    class Referable:
        number: int

        @cached
        def method(self) -> int:
            return self.number

    class Pair(NamedTuple):
        one: int

        @cached
        def method(self) -> int:
            return self.one

    for thing in (Slotted(1), Pair(1)):
        with pytest.raises(TypeError, match=r"allows none.*__weakref__.*key="):
            thing.method()
    cache: Any = Slotted.method.cache
    assert cache.stats().loads_in_flight == 0
    assert [Slotted(7).keyed(), Slotted(7).keyed()] == [7, 7]
    assert [Referable(1).method(), Referable(2).method()] == [1, 2]


def test_instances_need_no_hash() -> None:
    """A dataclass that compares by value has none."""

    @dataclasses.dataclass
    class Point:
        x: int

        @cached
        def double(self) -> int:
            return self.x * 2

    assert Point.__hash__ is None
    one, two = Point(1), Point(1)
    assert [one.double(), two.double()] == [2, 2]
    cache: Any = Point.double.cache
    assert cache.stats().miss_count == 2


def test_clearing_frees_the_values_of_living_instances() -> None:
    """Nothing but the cache keeps them."""

    class Value:
        pass

    class Owner:
        @cached
        def value(self) -> Value:
            return Value()

    owner = Owner()
    with no_collection():
        reference = weakref.ref(owner.value())
        owner_type: Any = Owner
        owner_type.value.cache.clear()
        assert reference() is None
