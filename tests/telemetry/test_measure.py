"""Measuring functions, coroutines and methods, in every form of the decorator."""

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import ConfigurationError, get_performance_report, measure, measure_performance
from otel_perfopt.report import OperationRow


def row(name: str) -> OperationRow:
    """The operation in the report."""
    return get_performance_report().operations[name]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock; returns what sets it forward."""
    now = [100.0]
    monkeypatch.setattr(measure, "_clock", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def plain(number: int, *, more: int = 1) -> int:
    """Add."""
    return number + more


async def slow(number: int, *, more: int = 1) -> int:
    """Add later."""
    await asyncio.sleep(0)
    return number + more


FORMS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "name and function": lambda name: lambda function: measure_performance(name, function),
    "name, function and options": lambda name: lambda function: measure_performance(name, function, span=False),
    "decorator with a name": lambda name: measure_performance(name),
    "decorator with a name and options": lambda name: measure_performance(name, span=False),
    "decorator with options": lambda _: measure_performance(span=False),
    "decorator with nothing": lambda _: measure_performance(),
    "bare decorator": lambda _: measure_performance,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [plain, slow])
def test_forms(form: str, function: Any, name: str) -> None:
    """They all measure, and keep everything about the function."""
    named = "name" in form
    label = name if named else f"{__name__}.{function.__qualname__}"
    before = 0 if label not in get_performance_report().operations else row(label).count
    measured = FORMS[form](name)(function)
    result = measured(1, more=2)
    assert (asyncio.run(result) if inspect.iscoroutine(result) else result) == 3
    assert row(label).count == before + 1
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__kwdefaults__", "__code__"):
        assert getattr(measured, attribute) == getattr(function, attribute)
    assert inspect.signature(measured) == inspect.signature(function)
    assert inspect.iscoroutinefunction(measured) == inspect.iscoroutinefunction(function)
    assert inspect.isfunction(measured)
    assert inspect.unwrap(measured) is function


class Shop:
    """A class with every kind of method."""

    base = 10

    @measure_performance("shop.method", span=False)
    def method(self, number: int) -> int:
        """Add to the instance's."""
        return self.base + number

    @measure_performance("shop.coroutine")
    async def coroutine(self, number: int) -> int:
        """Add later."""
        return self.base + number

    @measure_performance("shop.class_outside")
    @classmethod
    def class_outside(cls, number: int) -> int:
        """Add to the class's."""
        return cls.base + number

    @classmethod
    @measure_performance("shop.class_inside")
    def class_inside(cls, number: int) -> int:
        """Add to the class's."""
        return cls.base + number

    @measure_performance("shop.static_outside")
    @staticmethod
    def static_outside(number: int) -> int:
        """Add ten."""
        return 10 + number

    @staticmethod
    @measure_performance("shop.static_inside")
    def static_inside(number: int) -> int:
        """Add ten."""
        return 10 + number

    @measure_performance("shop.async_class")
    @classmethod
    async def async_class(cls, number: int) -> int:
        """Add later."""
        return cls.base + number

    @property
    @measure_performance("shop.property")
    def total(self) -> int:
        """The base and one."""
        return self.base + 1


@pytest.mark.parametrize(
    "method", ["class_outside", "class_inside", "static_outside", "static_inside", "method", "coroutine", "async_class"]
)
def test_methods(method: str) -> None:
    """Bound to their instance or class, from the instance and, where that makes sense, from the class."""
    instance = Shop()
    callers = [instance] if method in {"method", "coroutine"} else [instance, Shop]
    for calls, caller in enumerate(callers, 1):
        result = getattr(caller, method)(5)
        assert (asyncio.run(result) if inspect.iscoroutine(result) else result) == 15
        assert row(f"shop.{method}").count == calls
        assert getattr(caller, method).__name__ == method
        assert list(inspect.signature(getattr(caller, method)).parameters) == ["number"]
    is_async = method in {"coroutine", "async_class"}
    assert inspect.iscoroutinefunction(getattr(instance, method)) == is_async


def test_a_method_of_a_subclass_and_by_its_class() -> None:
    """The class of the caller arrives, and the function of the class takes its instance."""

    class Branch(Shop):
        base = 20

    before = row("shop.method").count if "shop.method" in get_performance_report().operations else 0
    assert Shop.method(Branch(), 1) == 21
    assert Branch.class_outside(1) == Branch().class_inside(1) == 21
    assert super(Branch, Branch()).method(1) == 21
    assert row("shop.method").count == before + 2
    assert Branch().total == 21
    assert row("shop.property").count == 1


class Adder:
    """An object that can be called."""

    def __call__(self, number: int) -> int:
        """Add."""
        return number + 1


class AsyncAdder:
    """An object whose call makes a coroutine."""

    async def __call__(self, number: int) -> int:
        """Add later."""
        await asyncio.sleep(0)
        return number + 1


def test_other_things_that_can_be_called(name: str, clock: Callable[[float], None]) -> None:
    """Objects, partials, lambdas, bound methods, classes and built-in functions; each has a name of its own."""
    assert measure_performance(Adder())(1) == 2
    assert row(f"{__name__}.Adder").count == 1
    assert measure_performance(functools.partial(functools.partial(plain, 1), more=5))() == 6
    assert row(f"{__name__}.plain").count >= 1
    assert asyncio.run(measure_performance(name, AsyncAdder())(1)) == 2
    assert asyncio.run(measure_performance(name, functools.partial(slow, 1))()) == 2
    assert measure_performance(name, lambda: 7)() == 7
    assert measure_performance(name, Shop().method)(1) == 11
    assert isinstance(measure_performance(name, Shop)(), Shop)
    assert measure_performance(len)([1]) == 1
    assert row("builtins.len").count == 1
    assert row(name).count == 5


def test_an_async_callable_is_measured_to_its_end(name: str, clock: Callable[[float], None]) -> None:
    """Not only until it has made its coroutine."""

    class Slow:
        async def __call__(self) -> None:
            clock(5)

    async def main() -> None:
        await measure_performance(name, Slow())()

    asyncio.run(main())
    assert row(name).max_duration == 5


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), "ValueError"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (StopIteration(), "StopIteration"),
        (ConfigurationError("x"), "otel_perfopt.errors.ConfigurationError"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"span": False}, {"track_memory": True}])
def test_failures(name: str, error: BaseException, kind: str, options: dict[str, Any], clock: Callable[[float], None]) -> None:
    """The error is the caller's, with its traceback to the function; the duration counts, under its type."""

    @measure_performance(name, **options)
    def fail() -> None:
        clock(2)
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert caught.traceback[-1].name == "fail"
    told = row(name)
    assert (told.count, told.success_count, told.error_count, told.errors) == (1, 0, 1, {kind: 1})
    assert (told.total_duration, told.success_rate, told.memory_deltas) == (2, 0, [])


def test_failures_of_coroutines(name: str, clock: Callable[[float], None]) -> None:
    """A cancellation reaches the coroutine and counts as a failure, as do exceptions."""

    @measure_performance(name)
    async def operation(seconds: float, error: Exception | None) -> str:
        clock(seconds)
        if error is not None:
            raise error
        await asyncio.Future[None]()
        return "never"

    async def main() -> None:
        task = asyncio.create_task(operation(1, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(LookupError):
            await operation(2, KeyError("x"))

    asyncio.run(main())
    assert row(name).errors == {"asyncio.exceptions.CancelledError": 1, "KeyError": 1}
    assert row(name).total_duration == 3


def test_a_coroutine_is_measured_from_its_first_step(name: str, clock: Callable[[float], None]) -> None:
    """Not from when it was made; and not at all if it is never awaited."""

    @measure_performance(name)
    async def operation() -> None:
        clock(1)

    coroutine = operation()
    clock(100)
    asyncio.run(coroutine)
    operation().close()
    assert (row(name).count, row(name).total_duration) == (1, 1)


def test_recursion(name: str, clock: Callable[[float], None]) -> None:
    """Each level is a call of its own, with what is inside."""

    @measure_performance(name)
    def factorial(number: int) -> int:
        clock(1)
        return 1 if number == 0 else number * factorial(number - 1)

    assert factorial(4) == 24
    told = row(name)
    assert (told.count, told.min_duration, told.max_duration, told.total_duration) == (5, 1, 5, 15)


def test_threads_and_tasks(name: str) -> None:
    """All calls count, from eight threads and from a thousand tasks."""
    total = itertools.count()

    @measure_performance(f"{name}-thread")
    def operation() -> None:
        next(total)

    @measure_performance(f"{name}-task", span=False)
    async def operation_async() -> None:
        await asyncio.sleep(0)
        next(total)

    threads = [threading.Thread(target=lambda: [operation() for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def main() -> None:
        await asyncio.gather(*(operation_async() for _ in range(1000)))

    asyncio.run(main())
    assert (row(f"{name}-thread").count, row(f"{name}-task").count, next(total)) == (4000, 1000, 5000)


def test_functions_of_one_name_are_summed(name: str, clock: Callable[[float], None]) -> None:
    """Measured functions, and what was recorded by hand."""
    for seconds in (1, 2):
        measure_performance(name, clock)(seconds)
    assert (row(name).count, row(name).total_duration) == (2, 3)


def test_decorated_twice(name: str) -> None:
    """Both names count, and the function stays what it was."""
    measured = measure_performance(f"{name}-outer", measure_performance(f"{name}-inner", slow))
    assert inspect.iscoroutinefunction(measured)
    assert asyncio.run(measured(1)) == 2
    assert row(f"{name}-outer").count == row(f"{name}-inner").count == 1


@pytest.mark.parametrize("name", ["", "   ", "\n"])
def test_an_empty_name_is_refused(name: str) -> None:
    """When decorating, not when calling."""
    with pytest.raises(ConfigurationError, match="needs a name"):
        measure_performance(name, plain)
    with pytest.raises(ConfigurationError, match="needs a name"):
        measure_performance(name)(plain)


@pytest.mark.parametrize("arguments", [(3,), ("name", 3), (3, plain), (b"name", plain)])
def test_what_is_no_function_or_no_name_is_refused(arguments: tuple[Any, ...]) -> None:
    """The message shows it."""
    with pytest.raises(TypeError, match=r"3|b'name'"):
        measure_performance(*arguments)


def test_a_thousand_names(script: Callable[..., Any]) -> None:
    """The rest counts as `other`; nothing is lost."""
    code = """
import json
from otel_perfopt import get_performance_report, measure_performance, record_performance_metric
for number in range(1005):
    measure_performance(f"operation {number}", lambda: None, span=False)()
    record_performance_metric(f"operation {number}", 0.5, success=False, error_type=f"Error{number}", memory_delta=number)
operations = get_performance_report().operations
other = operations["other"]
total = sum(row.count for row in operations.values())
print(json.dumps([len(operations), total, other.count, len(other.errors), other.memory_deltas]))"""
    assert script(code) == [1000, 2010, 12, 6, [999, 1000, 1001, 1002, 1003, 1004]]
