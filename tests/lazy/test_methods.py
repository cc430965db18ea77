"""Lazy functions and methods: one value, or one per instance, that lives and dies with it."""

import asyncio
import copy
import gc
import inspect
import pickle
import threading
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from otel_perfopt.lazy import LazyFunction, LazyLoader, LazyMethod, lazy
from otel_perfopt.single_flight import is_coroutine_function
from otel_perfopt.testing import ManualClock
from tests.cache.support import TIMEOUT, no_collection, results, run, spawn, spawn_many


@lazy
def function() -> list[int]:
    """Make a list."""
    return [1]


@lazy
async def coroutine() -> list[int]:
    """Make another list."""
    return [2]


class Service:
    """Counts its loads."""

    def __init__(self) -> None:
        self.loads = 0

    @lazy
    def connection(self) -> list["Service"]:
        """Connect to something."""
        self.loads += 1
        return [self]

    @lazy(error_ttl=0)
    async def session(self) -> int:
        """Open something."""
        self.loads += 1
        return self.loads

    @property
    @lazy
    def size(self) -> int:
        """How large it is."""
        self.loads += 1
        return self.loads

    @staticmethod
    @lazy
    def shared() -> object:
        """The same for all."""
        return object()

    @lazy
    @staticmethod
    def shared_inside() -> object:
        """The same for all."""
        return object()

    @lazy
    def broken(self) -> int:
        """Fail."""
        self.loads += 1
        raise OSError("down")


class Child(Service):
    """Overrides a lazy method with one of the same name."""

    @lazy
    def connection(self) -> list[Any]:
        """Connect to more."""
        return ["child", *super().connection()]


def test_a_function_is_called_once() -> None:
    """And keeps its name, its documentation and its signature."""
    assert isinstance(function, LazyFunction)
    assert function() is function() is function.get() is run(function.get_async())
    assert (vars(function)["__name__"], function.__doc__, function.name) == ("function", "Make a list.", f"{__name__}.function")
    assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))
    function.reset()
    assert not function.loaded


def test_a_coroutine_function_is_awaited_as_before() -> None:
    """And can be seen to be one."""

    async def main() -> None:
        assert await coroutine() is await coroutine() is await coroutine.get_async() is coroutine.get()

    run(main())
    assert is_coroutine_function(coroutine)
    assert not is_coroutine_function(function)


def test_a_method_has_one_value_per_instance() -> None:
    """Whether it is reached through the instance or through the class."""
    one, other = Service(), Service()
    assert one.connection() is one.connection() is Service.connection(one)
    assert one.connection() == [one]
    assert other.connection() == [other]
    assert (one.loads, other.loads, one.connection.loaded) == (1, 1, True)
    one.connection.reset()
    assert (one.connection.loaded, other.connection.loaded) == (False, True)
    one.connection()
    assert one.loads == 2


def test_a_method_that_is_a_coroutine_function() -> None:
    """Five tasks, one load; and a temporary instance lives as long as its load."""

    async def main() -> None:
        service = Service()
        assert await asyncio.gather(*(service.session() for _ in range(5))) == [1] * 5
        assert (await service.session.get_async(), await Service.session(service)) == (1, 1)
        assert await Service().session() == 1
        assert await asyncio.create_task(Service().session.get_async()) == 1

    run(main())


def test_a_property() -> None:
    """An attribute that is computed once per instance."""
    one, other = Service(), Service()
    assert (one.size, one.size, one.loads, other.size) == (1, 1, 1, 1)


def test_static_methods() -> None:
    """Have one value for all, in either order of the decorators."""
    assert Service.shared() is Service().shared()
    assert Service.shared_inside() is Service().shared_inside()


def test_an_overridden_method_has_a_value_of_its_own() -> None:
    """And may ask for that of the parent, although both have the same name."""
    child = Child()
    assert (child.connection(), child.connection()) == (["child", child], ["child", child])
    assert child.loads == 1


def test_one_lock_for_all_instances_there_is_not() -> None:
    """As with functools.cached_property of 3.11: eight instances load at the same time, or this would never end."""
    barrier = threading.Barrier(8, timeout=TIMEOUT)

    class Slow:
        @lazy
        def value(self) -> int:
            return barrier.wait()

    assert sorted(results([spawn(Slow().value) for _ in range(8)])) == list(range(8))


def test_threads_that_share_an_instance_load_once() -> None:
    """Also when all of them are the first to look the method up."""
    barrier = threading.Barrier(8, timeout=TIMEOUT)
    service = Service()

    def call() -> list[Service]:
        barrier.wait()
        return service.connection()

    values = results(spawn_many(8, call))
    assert all(value is values[0] for value in values)
    assert service.loads == 1


def test_an_instance_is_not_kept_alive() -> None:
    """Not even until a collection of garbage; but for as long as somebody holds its method, as a bound method does it."""

    class Plain:
        @lazy
        def value(self) -> object:
            return object()

        @lazy
        async def value_async(self) -> object:
            return object()

    with no_collection():
        instance = Plain()
        gone = weakref.ref(instance)
        value = weakref.ref(instance, lambda _: None), instance.value(), run(instance.value_async())
        method = instance.value
        del instance
        assert gone() is not None
        assert method() is value[1]
        del method
        assert gone() is None


@pytest.mark.parametrize("method", ["connection", "broken"])
def test_an_instance_whose_value_or_error_knows_it_can_be_collected(method: str) -> None:
    """The value is kept by the instance and by nobody else."""
    service = Service()
    try:
        getattr(service, method)()
    except OSError:
        pass
    gone = weakref.ref(service)
    del service
    gc.collect()
    assert gone() is None


def test_the_value_is_not_copied_with_its_instance() -> None:
    """A copy may differ from the original; it loads for itself, and a reset of the one is none of the other's."""
    service = Service()
    service.connection()
    for other in (copy.copy(service), copy.deepcopy(service), pickle.loads(pickle.dumps(service))):
        assert other.loads == 1
        assert not other.connection.loaded
        assert other.connection() == [other]
        other.connection.reset()
        assert service.connection() == [service]
        again = copy.copy(other)
        assert again.connection() == [again]
    assert service.loads == 1


def test_functions_and_methods_pickle_and_copy_by_name() -> None:
    """As functions do; a method of an instance goes with its instance."""
    for each in (function, coroutine, Service.connection):
        assert pickle.loads(pickle.dumps(each)) is copy.copy(each) is copy.deepcopy(each) is each
    service = Service()
    value = service.connection()
    assert copy.copy(service.connection)() is value
    assert copy.deepcopy(service.connection)() is not value
    assert pickle.loads(pickle.dumps(service.connection))() is not value
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(lazy(lambda: 1))


def test_a_copied_loader_starts_anew() -> None:
    """With the same function and options, and without the value."""
    loader = LazyLoader(list[int], ttl="5m", error_ttl=3, name="copied")
    value = loader.get()
    for other in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert (type(other), other.name, other.loaded) == (LazyLoader, "copied", False)
        assert other._state.options == loader._state.options
        assert other.get() == value
        assert other.get() is not value
    assert loader.get() is value


@dataclass(frozen=True)
class Frozen:
    """Refuses attributes; equal instances are different instances."""

    number: int

    @lazy
    def values(self) -> list[int]:
        """Compute something."""
        return [self.number]


def test_frozen_and_equal_instances() -> None:
    """Values are kept by identity."""
    one, same = Frozen(1), Frozen(1)
    assert one.values() is one.values()
    assert one.values() is not same.values()
    assert one == same


def test_instances_without_room_are_refused() -> None:
    """With a message that says what to do."""

    class Slotted:
        __slots__ = ("__weakref__",)

        @lazy
        def value(self) -> int:
            return 1

    class Classy:
        @classmethod
        @lazy
        def value(cls) -> int:
            return 1

    with pytest.raises(TypeError, match=r"Slotted has none to write to: add \"__dict__\""):
        Slotted().value()
    with pytest.raises(TypeError, match="a class has none"):
        Classy().value()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="str has none"):
        lazy(len)("text")


def test_functions_with_arguments_are_refused() -> None:
    """They are for @cached; arguments with defaults do not matter."""

    def two(a: int, b: int) -> int:
        return a + b

    def keyword(*, a: int) -> int:
        return a

    def optional(a: int = 1, *more: int, b: int = 2, **others: int) -> int:
        return a + b + len(more) + len(others)

    for each in (two, keyword):
        with pytest.raises(TypeError, match=r"also takes a.*Use @cached"):
            lazy(each)  # type: ignore[arg-type]
    assert lazy(optional)() == 3
    assert lazy(partial(two, 1, 2))() == 3
    assert isinstance(lazy(partial(two, 1)), LazyMethod)
    assert lazy(dict)() == {}


def test_options_of_methods() -> None:
    """Hold for each instance by itself."""
    clock = ManualClock()

    class Sensor:
        def __init__(self) -> None:
            self.reads = 0

        @lazy(ttl="5s", name="sensor", clock=clock)
        def value(self) -> int:
            self.reads += 1
            return self.reads

    one, other = Sensor(), Sensor()
    assert one.value() == 1
    clock.advance(4)
    assert (one.value(), other.value()) == (1, 1)
    clock.advance(4)
    assert (one.value(), other.value(), one.value.name) == (2, 1, "sensor")
