"""@cached on functions: which calls are one entry, and what the decorated function still is."""

import asyncio
import builtins
import copy
import functools
import inspect
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

from otel_perfopt import Cache, ConfigurationError, cached
from otel_perfopt.testing import ManualClock
from tests.cache.support import new_cache, run


@cached
def module_function(number: int, *, scale: float = 2.0) -> float:
    """Multiply."""
    return number * scale


@cached
async def module_coroutine(number: int) -> int:
    """Wait."""
    return number


class Holder:
    """Has a cached method, for pickles."""

    @cached
    def method(self) -> int:
        """Return one."""
        return 1


def counting(function: Callable[..., Any]) -> tuple[Any, list[Any]]:
    """Cache `function`, and list its real calls."""
    calls: list[Any] = []

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    counted.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # it takes what the function takes
    return cached(counted), calls


def every_kind(a: int, /, b: int, c: int = 3, *rest: int, d: int, e: int = 5, **more: int) -> Any:
    """Have a parameter of every kind."""
    return a, b, c, rest, d, e, more


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (lambda x: x, ["f(1)", "f(x=1)"]),
        (lambda x, y=2: (x, y), ["f(1)", "f(1, 2)", "f(1, y=2)", "f(y=2, x=1)", "f(x=1)"]),
        (lambda *, x=1, y=2: (x, y), ["f()", "f(x=1)", "f(y=2, x=1)", "f(**{'y': 2})"]),
        (lambda x, *args: (x, args), ["f(1, 2, 3)", "f(1, *(2, 3))"]),
        (lambda **kw: kw, ["f(a=1, b=2)", "f(b=2, a=1)"]),
        (every_kind, ["f(1, 2, d=4)", "f(1, b=2, d=4, e=5)", "f(1, 2, 3, e=5, d=4)", "f(1, d=4, c=3, b=2)"]),
        (every_kind, ["f(1, 2, 3, 9, 8, d=4, z=1, y=2)", "f(1, 2, 3, 9, 8, y=2, z=1, d=4)"]),
        (lambda a, /, **kw: (a, kw), ["f(1, a=2)", "f(1, **{'a': 2})"]),
        (lambda: "nothing", ["f()", "f(*(), **{})"]),
    ],
)
def test_calls_that_mean_the_same_are_one_entry(function: Callable[..., Any], calls: list[str]) -> None:
    """However the arguments are written."""
    f, made = counting(function)
    answers = [eval(call, {"f": f}) for call in calls]
    assert answers == [eval(call, {"f": function}) for call in calls]
    assert len(made) == 1
    assert eval(calls[-1].replace("f(", "f.invalidate(", 1), {"f": f}) is True
    assert len(f.cache) == 0


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (lambda x, y=2: (x, y), ["f(1)", "f(2)", "f(1, 3)", "f((1, 2))"]),
        (lambda *args: args, ["f()", "f(())", "f(1)", "f(1, 2)", "f((1, 2))"]),
        (lambda *args, **kw: (args, kw), ["f(('a', 1))", "f(a=1)", "f((('a', 1),))", "f(a=1, b=2)", "f(b=1, a=2)"]),
        (lambda a, *args, k=0: (a, args, k), ["f(1, 2)", "f(1, k=2)", "f(1, 2, k=2)", "f((1, 2))"]),
    ],
)
def test_calls_that_differ_are_entries_of_their_own(function: Callable[..., Any], calls: list[str]) -> None:
    """Positional and keyword parts of a key do not run into each other."""
    f, made = counting(function)
    for _ in range(2):
        assert [eval(call, {"f": f}) for call in calls] == [eval(call, {"f": function}) for call in calls]
    assert len(made) == len(calls)


def test_parameters_may_have_any_name() -> None:
    """Names that the generated code uses itself, and names of builtins."""
    sources = [
        "def f(_cached_entry, _cached_find, __cached_x, _cached_): return [_cached_entry, _cached_find, __cached_x, _cached_]",
        "def f(freeze, id, partial, TypeError): return [freeze, id, partial, TypeError]",
        "def f(hits, value, entry, counts): return [hits, value, entry, counts]",
        "def f(KeyError, None_, match, type): return [KeyError, None_, match, type]",
        "def _cached_function(a, b, c, d): return [a, b, c, d]",
        "def _cached_key_of(a, b, c, d): return [a, b, c, d]",
        "def TypeError(a, b, c, d): return [a, b, c, d]",
        "def id(a, b, *c, **d): return [a, b, *c, d['k']] if d else [a, b, *c]",
        "def größe(ä, ö, ü, ß): return [ä, ö, ü, ß]",
        "f = lambda _, __, self, cls: [_, __, self, cls]",
    ]
    for policy in ("s3fifo", "lru"):
        for source in sources:
            namespace: dict[str, Any] = {"__name__": "made", "__builtins__": builtins}
            exec(source, namespace)
            function = next(value for name, value in namespace.items() if not name.startswith("__") and callable(value))
            wrapped: Any = cached(policy=policy)(function)
            for _ in range(2):
                assert wrapped(1, 2, 3, 4) == [1, 2, 3, 4]
            assert wrapped.cache.stats().hit_count == 1
            with pytest.raises(builtins.TypeError, match="not hashable"):
                wrapped([], 2, 3, 4)


def test_arguments_without_a_hash_are_named() -> None:
    """The message names the function, the argument, its value, and what to do."""

    @cached
    def search(index: object, words: object, **options: object) -> int:
        return 1

    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: search([1, 2], "a"), "index=[1, 2]"),
        (lambda: search(1, {"a"}), "words={'a'}"),
        (lambda: search(1, 2, deep={}), "deep={}"),
    ]
    for call, name in calls:
        with pytest.raises(TypeError, match=r"search\(\) cannot be cached .* not hashable.*key=") as info:
            call()
        assert name in str(info.value)
    assert search.cache.stats().miss_count == 0


def test_an_error_of_the_arguments_is_the_functions_own() -> None:
    """A wrong call raises the TypeError of the function's signature, and names the function."""
    misused: Any = module_function
    with pytest.raises(TypeError, match=r"module_function\(\) missing 1 required positional argument: 'number'"):
        misused()
    with pytest.raises(TypeError, match=r"module_function\(\) got an unexpected keyword argument 'nope'"):
        misused(1, nope=1)
    with pytest.raises(TypeError, match=r"module_function\.invalidate\(\) missing 1 required"):
        misused.invalidate()


def test_a_key_function_makes_the_key() -> None:
    """It takes the arguments as the function does; what it leaves out does not matter."""
    calls = []

    @cached(key=lambda request, limit=10: (request["user"], limit))
    def fetch(request: dict[str, Any], limit: int = 10) -> str:
        calls.append(request)
        return f"{request['user']} {limit}"

    assert fetch({"user": "ada", "time": 1}) == fetch({"user": "ada", "time": 2}, limit=10) == "ada 10"
    assert len(calls) == 1
    assert fetch.invalidate({"user": "ada"}) is True
    assert len(fetch.cache) == 0


def test_errors_of_key_are_those_of_the_call() -> None:
    """Also one that looks like a key that is not there."""

    @cached(key=lambda request: request["user"])
    def search(request: dict[str, str]) -> str:
        return "found"

    with pytest.raises(KeyError, match="user") as info:
        search({})
    assert info.value.__context__ is None
    assert search({"user": "ada"}) == "found"


def test_functions_that_share_a_cache_do_not_collide() -> None:
    """Named functions, closures of one function, lambdas, coroutine functions, with and without key=."""
    cache = new_cache()

    def multiply_by(factor: int) -> Callable[[int], int]:
        @cached(cache=cache)
        def multiply(number: int) -> int:
            return number * factor

        return multiply

    @cached(cache=cache)
    async def later(number: int) -> str:
        return f"later {number}"

    functions: list[Any] = [multiply_by(2), multiply_by(3), *(cached(cache=cache)(lambda x, c=c: (c, x)) for c in "ab")]
    functions += [cached(cache=cache, key=lambda x, c: x)(lambda x, c=c: (c, x)) for c in "cd"]
    for _ in range(2):
        assert [f(5) for f in functions] == [10, 15, ("a", 5), ("b", 5), ("c", 5), ("d", 5)]
        assert run(later(5)) == "later 5"
    assert (len(cache), cache.stats().hit_count) == (7, 7)
    assert functions[0].invalidate(5) is True
    assert len(cache) == 6
    assert all(f.cache is cache for f in functions)


def test_options_reach_the_cache() -> None:
    """With parentheses, options are those of Cache."""
    clock = ManualClock()

    @cached(ttl="10s", max_size=2, policy="lru", name="squares", clock=clock)
    def square(number: int) -> int:
        return number * number

    assert [square(number) for number in (1, 2, 1, 3)] == [1, 4, 1, 9]
    cache: Any = square.cache
    assert (cache.name, cache.ttl, cache.max_size, cache.policy, len(cache)) == ("squares", 10, 2, "lru", 2)
    assert square.invalidate(1) is True
    square(3)
    clock.advance(10)
    square(3)
    assert cache.stats().miss_count == 4
    assert isinstance(cache, Cache)


def test_the_name_of_a_cache_is_that_of_the_function() -> None:
    """By default."""
    cache: Any = module_function.cache
    assert cache.name.endswith("test_cached_functions.module_function")


@pytest.mark.parametrize("options", [{"ttl": 5}, {"name": "x"}, {"max_size": 1, "policy": "lru"}])
def test_options_beside_an_existing_cache_are_refused(options: dict[str, Any]) -> None:
    """They would have no effect."""
    decorate: Any = cached
    with pytest.raises(ConfigurationError, match="has no effect beside cache=") as info:
        decorate(cache=new_cache(), **options)(lambda: 1)
    assert all(f"{option}=" in str(info.value) for option in options)


@pytest.mark.parametrize("wrong", [5, "5m", None.__class__, [], property(lambda self: 1), new_cache])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    """With a TypeError that shows how options are written."""
    decorate: Any = cached
    if callable(wrong):
        decorate(wrong)
    else:
        with pytest.raises(TypeError, match="ttl='5m'"):
            decorate(wrong)


def test_what_yields_is_refused() -> None:
    """A generator could be read only once."""

    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    class Generating:
        def __call__(self) -> Any:
            yield 1

    decorate: Any = cached
    for function in (generator, async_generator, functools.partial(generator), Generating()):
        with pytest.raises(TypeError, match="Return a list or a tuple instead"):
            decorate(function)


def test_the_function_stays_what_it_was() -> None:
    """Name, documentation, annotations, defaults, signature, module, attributes, and the function itself."""

    def original(a: int, /, b: "int" = 2, *args: int, c: int = 3, **kw: int) -> list[int]:
        """Say so."""
        return [a, b, c]

    original.mark = "kept"  # type: ignore[attr-defined]
    wrapped: Any = cached(original)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__defaults__", "__kwdefaults__"):
        assert getattr(wrapped, name) == getattr(original, name)
    assert inspect.signature(wrapped) == inspect.signature(original)
    assert inspect.signature(wrapped, follow_wrapped=False).parameters.keys() == inspect.signature(original).parameters.keys()
    assert typing.get_type_hints(wrapped) == typing.get_type_hints(original)
    assert (wrapped.__wrapped__, wrapped.mark, inspect.isfunction(wrapped)) == (original, "kept", True)
    assert not inspect.iscoroutinefunction(wrapped)


def test_a_coroutine_function_stays_one() -> None:
    """For every way to ask."""
    assert inspect.iscoroutinefunction(module_coroutine)
    assert inspect.isfunction(module_coroutine)

    async def main() -> None:
        coroutine = module_coroutine(5)
        assert inspect.iscoroutine(coroutine)
        assert await coroutine == 5
        assert await asyncio.gather(*(module_coroutine(n % 2) for n in range(6))) == [0, 1] * 3
        assert module_coroutine.invalidate(5) is True

    run(main())


@pytest.mark.parametrize("function", [module_function, module_coroutine, Holder.method])
def test_it_pickles_and_copies_by_name(function: Any) -> None:
    """As any function: a copy is the function itself."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.copy(function) is copy.deepcopy(function) is function


def test_anything_callable_can_be_cached() -> None:
    """Built-in functions, classes, partials, bound methods, objects, and functions decorated before."""

    class Adder:
        def __call__(self, number: int) -> int:
            return number + 1

        def method(self, number: int) -> int:
            return number + 2

    @functools.lru_cache
    def decorated(number: int) -> int:
        return number + 3

    functions: list[Any] = [abs, str, functools.partial(pow, 2), Adder(), Adder().method, decorated, "{}".format, max]
    for function in functions:
        wrapped: Any = cached(function)
        arguments = (3, 4) if function is max else (3,)
        assert wrapped(*arguments) == wrapped(*arguments) == function(*arguments)
        assert (wrapped.cache.stats().hit_count, wrapped.cache.stats().miss_count) == (1, 1)


def test_a_partial_keeps_its_arguments_apart() -> None:
    """Two partials of one function are two functions."""
    two, three = cached(functools.partial(pow, 2)), cached(functools.partial(pow, 3))
    assert (two(5), three(5)) == (32, 243)


def test_an_error_is_not_kept() -> None:
    """A call that raised runs again."""
    f, calls = counting(lambda x: 1 // x)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            f(0)
    assert len(calls) == 2
