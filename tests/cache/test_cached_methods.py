"""@cached on methods: each instance has entries of its own, whatever kind of method it is."""

from typing import Any

import pytest

from otel_perfopt import cached
from tests.cache.support import new_cache


class Account:
    """Compares equal to every other account of the same number."""

    def __init__(self, number: int, balance: int) -> None:
        self.number, self.balance = number, balance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    @cached
    def report(self, currency: str = "EUR") -> str:
        """Return the balance."""
        return f"{self.balance} {currency}"

    @property
    @cached
    def total(self) -> int:
        """The balance."""
        return self.balance

    @classmethod
    @cached
    def inside(cls, number: int) -> tuple[str, int]:
        """Be a cached function inside a classmethod."""
        return cls.__name__, number

    @cached  # type: ignore[arg-type, unused-ignore]
    @classmethod
    def outside(cls, number: int) -> tuple[str, int]:
        """Be a classmethod inside a cached function."""
        return cls.__name__, number

    @staticmethod
    @cached
    def static_inside(number: int) -> int:
        """Double."""
        return number * 2

    @cached  # type: ignore[arg-type, unused-ignore]
    @staticmethod
    def static_outside(number: int) -> int:
        """Triple."""
        return number * 3

    @cached
    def __secret(self) -> int:
        return self.balance

    def reveal(self) -> int:
        """Call a private cached method."""
        return self.__secret()


class Savings(Account):
    """Inherits, overrides and calls up."""

    @cached
    def report(self, currency: str = "EUR") -> str:
        """Return more."""
        return f"savings: {super().report(currency)}"


ACCOUNT: Any = Account  # for uses that a type checker refuses, or cannot follow


def test_each_instance_has_its_own_entries() -> None:
    """Also one that compares equal to another."""
    one, two = Account(1, 10), Account(1, 20)
    assert one == two
    assert [one.report(), two.report(), one.report("USD"), one.report(currency="EUR")] == ["10 EUR", "20 EUR", "10 USD", "10 EUR"]
    one.balance = two.balance = 0
    assert [one.report(), two.report()] == ["10 EUR", "20 EUR"]


def test_invalidate_takes_the_instance() -> None:
    """Class.method.invalidate(obj, ...) forgets one call of one instance."""
    one, two = Account(1, 10), Account(1, 20)
    for account in (one, two):
        account.report()
        account.balance = 0
    assert ACCOUNT.report.invalidate(one, currency="EUR") is True
    assert ACCOUNT.report.invalidate(one) is False
    assert [one.report(), two.report()] == ["0 EUR", "20 EUR"]


def test_invalidate_without_the_instance_is_explained() -> None:
    """obj.method.invalidate(5) looks right, and would forget nothing."""
    account: Any = Account(1, 10)
    with pytest.raises(TypeError, match=r"first argument of Account\.report\.invalidate\(\) is the instance, not 'USD'"):
        account.report.invalidate("USD")
    with pytest.raises(TypeError, match=r"is the instance, which is missing"):
        account.report.invalidate()
    with pytest.raises(TypeError, match=r"is the instance, not 5"):
        ACCOUNT.outside.invalidate(5)
    assert account.report.invalidate(account) is False


def test_invalidate_of_a_property_does_not_compute_it() -> None:
    """A property over a cached function is forgotten through `fget`, without being asked for."""
    account = Account(1, 10)
    total: Any = ACCOUNT.total.fget
    before = total.cache.stats()
    assert total.invalidate(account) is False
    assert total.cache.stats().miss_count == before.miss_count
    assert (account.total, account.total) == (10, 10)
    assert total.invalidate(account) is True


def test_methods_under_another_name_can_be_invalidated() -> None:
    """Private methods, aliases, and subclasses."""

    class Alias:
        alias: Any = cached(lambda self: 1)

        def _hidden(self) -> int:
            return 2

        other = cached(_hidden)
        del _hidden

    for kind in (Alias, type("Sub", (Alias,), {})):
        thing: Any = kind()
        assert (thing.alias(), thing.other()) == (1, 2)
        assert Alias.other.invalidate(thing) is True
    account = Account(1, 10)
    assert account.reveal() == 10
    assert ACCOUNT._Account__secret.invalidate(account) is True
    savings: Any = Savings(1, 10)
    savings.total  # noqa: B018 - fills the cache
    assert ACCOUNT.total.fget.invalidate(savings) is True


def test_class_methods_and_static_methods_work_in_both_orders() -> None:
    """Classes have entries of their own; static methods have none of an instance."""
    for _ in range(2):
        assert [Account.inside(1), Savings.inside(1)] == [("Account", 1), ("Savings", 1)]
        assert [Account.outside(1), Savings.outside(1)] == [("Account", 1), ("Savings", 1)]
        assert [Account.static_inside(4), Account(1, 1).static_inside(4), Account.static_outside(4)] == [8, 8, 12]
    assert ACCOUNT.static_inside.cache.stats().miss_count == 1
    assert ACCOUNT.outside.invalidate(Savings, 1) is True
    assert ACCOUNT.inside.invalidate(Account, number=1) is True
    assert ACCOUNT.static_outside.invalidate(4) is True


def test_inherited_and_overridden_methods_do_not_mix() -> None:
    """An override that calls super() has entries beside those of the base; a shared cache keeps them apart, too."""
    savings = Savings(1, 10)
    assert [savings.report(), Account.report(savings), savings.report()] == ["savings: 10 EUR", "10 EUR", "savings: 10 EUR"]
    shared = new_cache()

    class Base:
        @cached(cache=shared)
        def name(self) -> str:
            return "base"

    class Derived(Base):
        @cached(cache=shared)
        def name(self) -> str:
            return f"derived {super().name()}"

    assert [Derived().name(), Base().name()] == ["derived base", "base"]
    thing = Derived()
    assert [thing.name(), thing.name()] == ["derived base"] * 2


def test_special_methods_can_be_cached() -> None:
    """__call__, __getitem__ and __len__ are methods like others."""

    class Special:
        def __init__(self) -> None:
            self.calls = 0

        @cached
        def __call__(self, number: int) -> int:
            self.calls += 1
            return number

        @cached
        def __getitem__(self, key: str) -> str:
            self.calls += 1
            return key

        @cached
        def __len__(self) -> int:
            self.calls += 1
            return 0

    thing = Special()
    assert [thing(1), thing(1), thing["a"], thing["a"], len(thing), len(thing)] == [1, 1, "a", "a", 0, 0]
    assert thing.calls == 3
    special: Any = Special
    assert special.__call__.invalidate(thing, 1) is True


def test_a_method_of_a_class_in_a_function_is_a_method() -> None:
    """And a function in a function whose parameter is called self is none."""

    @cached
    def free(self: int) -> int:
        return self + 1

    class Local:
        @cached
        def method(self) -> int:
            return id(self)

    assert [free(1), free(self=1)] == [2, 2]
    assert free.invalidate(1) is True
    one, two = Local(), Local()
    assert one.method() != two.method()
