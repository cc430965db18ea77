"""The decorators for other people's functions and classes: traced, observed_load, observed_cache."""

import asyncio
import copy
import gc
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_perfopt import Cache, get_performance_report, observed_cache, observed_load, traced
from otel_perfopt.report import CacheRow
from otel_perfopt.telemetry import names


def row(name: str) -> CacheRow:
    """The cache in the report."""
    return get_performance_report().caches[name]


def hits_and_misses(name: str) -> tuple[int, int]:
    """What was counted."""
    return row(name).hit_count, row(name).miss_count


def run(result: Any) -> Any:
    """The result of a call, also of one that made a coroutine."""
    return asyncio.run(result) if inspect.iscoroutine(result) else result


class Foreign:
    """Somebody else's cache."""

    def __init__(self, name: Any = "foreign") -> None:
        self.name = name
        self.store: dict[Any, Any] = {"a": 1, "none": None}

    def look_up(self, key: Any) -> Any:
        """The value, or None."""
        return self.store.get(key)

    async def look_up_async(self, key: Any) -> Any:
        """The value, or None."""
        await asyncio.sleep(0)
        return self.store.get(key)

    def item(self, key: Any) -> Any:
        """The value, or an error."""
        return self.store[key]

    async def item_async(self, key: Any) -> Any:
        """The value, or an error."""
        await asyncio.sleep(0)
        return self.store[key]

    def load(self, key: Any) -> Any:
        """Load, or fail."""
        return 100 / key

    async def load_async(self, key: Any) -> Any:
        """Load, or fail."""
        await asyncio.sleep(0)
        return 100 / key


@pytest.mark.parametrize("method", ["look_up", "look_up_async"])
def test_observed_cache(name: str, method: str) -> None:
    """Hits and misses count under the name, and the values come through."""
    look_up: Any = observed_cache(name)(getattr(Foreign, method))
    foreign = Foreign()
    assert [run(look_up(foreign, key)) for key in ("a", "a", "b", "none")] == [1, 1, None, None]
    assert hits_and_misses(name) == (2, 2)
    assert inspect.iscoroutinefunction(look_up) == inspect.iscoroutinefunction(getattr(Foreign, method))
    assert look_up.__name__ == method


@pytest.mark.parametrize("method", ["item", "item_async"])
def test_a_look_up_that_raises(name: str, method: str) -> None:
    """A LookupError is a miss; anything else is neither; both reach the caller."""
    look_up: Any = observed_cache(name)(getattr(Foreign, method))
    foreign = Foreign()
    assert run(look_up(foreign, "a")) == 1
    with pytest.raises(KeyError):
        run(look_up(foreign, "b"))
    with pytest.raises(TypeError):
        run(look_up(foreign, []))
    assert hits_and_misses(name) == (1, 1)


def test_what_a_hit_is(name: str) -> None:
    """The service decides; a decision that fails is a miss, and does not reach the caller."""
    look_up = observed_cache(name, is_hit=lambda found: found[0] == "found")(lambda answer: answer)
    assert [look_up(("found", 1)), look_up(("missing", 1)), look_up(3)] == [("found", 1), ("missing", 1), 3]  # type: ignore[no-untyped-call]  # of a lambda
    assert hits_and_misses(name) == (1, 2)


def test_observed_cache_on_a_class(name: str) -> None:
    """As a decorator in the class body; all instances count together, also when the function is gone."""

    class Mine:
        @observed_cache(name)
        def look_up(self, key: str) -> str | None:
            """Look up."""
            return key or None

        @observed_cache(f"{name}-static")
        @staticmethod
        async def look_up_anywhere(key: str) -> str | None:
            """Look up."""
            return key or None

    assert [Mine().look_up("a"), Mine().look_up("")] == ["a", None]
    assert run(Mine.look_up_anywhere("a")) == "a"
    assert hits_and_misses(name) == (1, 1)
    assert hits_and_misses(f"{name}-static") == (1, 0)
    del Mine
    gc.collect()
    assert hits_and_misses(name) == (1, 1)


def test_observed_beside_a_cache_of_the_same_name(name: str) -> None:
    """Their counts are summed."""
    cache = Cache(name)
    cache.set(1, 1)
    cache.get(1)
    observed_cache(name)(lambda: 1)()
    assert hits_and_misses(name) == (2, 0)


@pytest.mark.parametrize("method", ["load", "load_async"])
def test_observed_load(exporter: InMemorySpanExporter, name: str, method: str) -> None:
    """A span and a duration under the instance's name, for successes and failures."""

    class Mine(Foreign):
        pass

    setattr(Mine, method, observed_load()(getattr(Foreign, method)))
    load: Any = getattr(Mine(name), method)
    assert run(load(4)) == 25
    with pytest.raises(ZeroDivisionError):
        run(load(0))
    succeeded, failed = exporter.get_finished_spans()
    assert succeeded.name == failed.name == f"load {name}"
    assert succeeded.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(succeeded.attributes or {}) == {names.CACHE_NAME: name}
    Cache(name)
    assert row(name).loads.count == 1
    assert row(name).load_errors == {"ZeroDivisionError": 1}
    assert inspect.iscoroutinefunction(getattr(Mine, method)) == inspect.iscoroutinefunction(getattr(Foreign, method))


@pytest.mark.parametrize("given", [None, 3, ""])
def test_an_instance_without_a_usable_name(exporter: InMemorySpanExporter, given: Any) -> None:
    """The function's own name stands in; the caller notices nothing."""
    load = observed_load()(Foreign.load)
    assert load(Foreign(given), 5) == 20
    assert [span.name for span in exporter.get_finished_spans()] == [f"load {__name__}.Foreign.load"]


def test_observed_load_of_functions(exporter: InMemorySpanExporter, name: str) -> None:
    """With a name, and without one."""
    assert observed_load(name)(lambda: 1)() == 1
    assert observed_load()(len)([1, 2]) == 2
    assert observed_load("odd \udcff")(lambda: 3)() == 3
    assert [span.name for span in exporter.get_finished_spans()] == [f"load {name}", "load builtins.len", "load odd ?"]


def test_traced(exporter: InMemorySpanExporter) -> None:
    """Functions, coroutines, and methods of every kind."""

    class Mine:
        @traced("method", attributes={"mine": 1})
        def method(self) -> "Mine":
            """Itself."""
            return self

        @traced("async class")
        @classmethod
        async def class_method(cls) -> str:
            """The name."""
            await asyncio.sleep(0)
            return cls.__name__

        @staticmethod
        @traced("static")
        def static() -> int:
            """One."""
            return 1

    mine = Mine()
    assert mine.method() is mine
    assert run(Mine.class_method()) == run(mine.class_method()) == "Mine"
    assert mine.static() == Mine.static() == 1
    assert traced("function")(lambda: 2)() == 2
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["method", "async class", "async class", "static", "static", "function"]
    assert dict(spans[0].attributes or {}) == {"mine": 1}


def test_a_traced_coroutine_is_spanned_to_its_end(exporter: InMemorySpanExporter) -> None:
    """Also that of a class method, and of an object that can be called."""

    class Calls:
        async def __call__(self) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(traced("called")(Calls())())
    assert [span.status.status_code for span in exporter.get_finished_spans()] == [StatusCode.ERROR]


def generator() -> Iterator[int]:
    """One."""
    yield 1


async def async_generator() -> AsyncIterator[int]:
    """One."""
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_generators_are_refused(function: Callable[..., Any]) -> None:
    """A span around making one would tell nothing; the message says what to use."""
    with pytest.raises(TypeError, match="measure_performance"):
        traced("x")(function)


@observed_cache("copied")
def copied(key: int) -> int:
    """Itself."""
    return key


@observed_load("copied")
def copied_load(key: int) -> int:
    """Itself."""
    return key


def test_pickling_and_copying() -> None:
    """By name, as functions."""
    for function in (copied, copied_load):
        for same in (pickle.loads(pickle.dumps(function)), copy.copy(function), copy.deepcopy(function)):
            assert same is function
