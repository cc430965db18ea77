"""The decorator: a function that remembers what it returned."""

import inspect
import reprlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from otel_perfopt.cache.cache import Cache
from otel_perfopt.cache.load import Request
from otel_perfopt.cache.memory import Weigher
from otel_perfopt.cache.template import make_function
from otel_perfopt.cache.terms import checked_tags
from otel_perfopt.cache.typing import CachedDecorator, CachedFunction, KeyFunction
from otel_perfopt.durations import Duration
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.registry import Place
from otel_perfopt.single_flight import is_coroutine_function
from otel_perfopt.unset import UNSET

if TYPE_CHECKING:
    from otel_perfopt.tiers import Codec, Tier

__all__ = ("cached",)

MAX_DECORATORS = 32

P = ParamSpec("P")
R = TypeVar("R")

Tags = tuple[str, ...] | Callable[..., Iterable[str]]


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...
@overload
def cached(
    *,
    max_size: int | None = 1000,
    ttl: Duration | None = 300.0,
    ttl_jitter: float = 0.0,
    refresh_after: Duration | None = None,
    stale_for: Duration | None = 0.0,
    soft_timeout: Duration | None = None,
    hard_timeout: Duration | None = None,
    error_ttl: Duration | None = 0.0,
    policy: Literal["s3fifo", "lru"] = "s3fifo",
    max_weight: float | None = None,
    weigher: Weigher | None = None,
    value_type: Any = None,
    tiers: "Sequence[Tier]" = (),
    persist: bool | str | Path = False,
    codec: "Codec[Any] | None" = None,
    unencodable: Literal["raise", "memory"] = "raise",
    hot_keys: bool = True,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    cache: Cache[Any, Any] | None = None,
    key: KeyFunction | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    name: str | None = None,
) -> CachedDecorator: ...
@overload
def cached(  # type: ignore[overload-cannot-match]
    *,
    max_size: int | None = 1000,
    ttl: Duration | None = 300.0,
    ttl_jitter: float = 0.0,
    refresh_after: Duration | None = None,
    stale_for: Duration | None = 0.0,
    soft_timeout: Duration | None = None,
    hard_timeout: Duration | None = None,
    error_ttl: Duration | None = 0.0,
    policy: Literal["s3fifo", "lru"] = "s3fifo",
    max_weight: float | None = None,
    weigher: Weigher | None = None,
    value_type: Any = None,
    tiers: "Sequence[Tier]" = (),
    persist: bool | str | Path = False,
    codec: "Codec[Any] | None" = None,
    unencodable: Literal["raise", "memory"] = "raise",
    hot_keys: bool = True,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    cache: Cache[Any, Any] | None = None,
    key: Callable[..., Hashable],
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    name: str | None = None,
) -> CachedDecorator: ...
def cached(
    function: Any = None,
    /,
    *,
    cache: Cache[Any, Any] | None = None,
    key: Callable[..., Any] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    name: str | None = None,
    **options: Any,
) -> Any:
    """Keep what a function returns, by its arguments.

    For functions, coroutine functions and methods. Calls at the same time with the same arguments share one call of the
    function, whichever thread or event loop they come from. ``f(1)`` and ``f(x=1)`` are one entry. A method keeps the entries
    of each instance until the instance is gone, and keeps no instance alive; a function in a class body is a method if its
    first parameter is called ``self`` or ``cls``. The decorated function has two attributes more: ``cache``, and
    ``invalidate``, which takes the arguments of the function (for a method: ``Class.method.invalidate(obj, ...)``).

    Args:
        function: the function, when the decorator is used without parentheses.
        cache: an existing cache to keep the values in; the keys then begin with the name of the function.
        key: takes the arguments and returns the key, for arguments that are not hashable or do not matter.
        tags: the tags of every entry, for `Cache.invalidate_tag`; or a function that takes the arguments and returns them.
        name: the name of the cache; the module and the qualified name of the function by default.
        options: all others that `Cache` has.

    Raises:
        TypeError: it is no function, or one that yields.
        ConfigurationError: an option has a value that cannot work.

    >>> @cached(ttl="5m", max_size=100)
    ... def square(number):
    ...     print("computing")
    ...     return number * number
    >>> square(3), square(number=3)
    computing
    (9, 9)
    >>> square.invalidate(3), square.cache.stats().hit_rate
    (True, 0.5)
    """
    if function is None:
        return partial(cached, cache=cache, key=key, tags=tags, name=name, **options)
    tags = tags if callable(tags) else checked_tags(tags)
    if isinstance(function, classmethod | staticmethod):
        inner = _decorate(function.__func__, cache, key, tags, name, options, is_method=isinstance(function, classmethod))
        return type(function)(inner)
    return _decorate(function, cache, key, tags, name, options, is_method=_is_method(function))


def _decorate(
    function: Callable[..., Any],
    cache: Cache[Any, Any] | None,
    key: Callable[..., Any] | None,
    tags: Tags,
    name: str | None,
    options: dict[str, Any],
    *,
    is_method: bool,
) -> Any:
    _check(function)
    label = _label(function)
    shared = cache is not None
    is_async = is_coroutine_function(function)
    _check_keys(label, cache, name, options, is_identity=is_method and key is None)
    if cache is None:
        cache = Cache(name or label, _place=Place(label), **options)
    elif name is not None or options:
        given = [f"{option}=" for option in (*(["name"] if name is not None else []), *options)]
        raise ConfigurationError(f"{', '.join(given)} has no effect beside cache=, which brings its own options")
    else:
        label = cache._claim(label)
    call, key_of = make_function(
        function,
        label=label,
        is_async=is_async,
        is_method=is_method,
        shared=shared,
        key=key,
        policy=cache.policy,
        hot_keys=cache._hot.is_on,
        helpers={
            "store": cache._store,
            "clock": cache.clock,
            "hits": cache._hot.counts.countdown,
            "sample": cache._hot.sample,
            "miss": _miss_async(cache, tags) if is_async else _miss(cache, tags),
            "explain": partial(_explain if key is None else _explain_key, label),
        },
    )

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        if is_method:
            _check_instance(call, args)
        return cache.delete(key_of(*args, **kwargs))

    call.__dict__.update(cache=cache, invalidate=invalidate)
    return call


def _check_keys(
    label: str, cache: Cache[Any, Any] | None, name: str | None, options: dict[str, Any], *, is_identity: bool
) -> None:
    """Refuse keys that mean something else in another process, if there is a tier that outlives this one."""
    if cache._behind is None if cache is not None else not (options.get("tiers") or options.get("persist")):
        return
    if is_identity:
        raise ConfigurationError(
            f"@cached: {label}() is a method, whose entries belong to one instance of one process; what is behind the memory "
            f"outlives it. Give key= with a function that identifies the instance, or no tiers= and persist="
        )
    if cache is None and name is None and "<" in label:
        raise ConfigurationError(
            f"@cached: {label}() is defined inside another function and may depend on its variables, which are not in the key; "
            f"give name= if a tier may keep its values under one name"
        )


def _miss(cache: Cache[Any, Any], tags: Tags) -> Callable[[Any, object, Callable[[], Any]], Any]:
    # Without the checks of `_get_or_load`: nothing here can be wrong, and a function that calls itself pays for each frame.
    share = cache._share if cache._is_simple else cache._get_or_share
    if callable(tags):
        return lambda key, owner, loader: share(Request(key, loader, UNSET, _tags_of(tags, loader), owner))
    return lambda key, owner, loader: share(Request(key, loader, UNSET, tags, owner))


def _miss_async(cache: Cache[Any, Any], tags: Tags) -> Callable[[Any, object, Callable[[], Any]], Any]:
    if callable(tags):
        return lambda key, owner, loader: cache._get_or_load_async(Request(key, loader, UNSET, _tags_of(tags, loader), owner))
    return lambda key, owner, loader: cache._get_or_load_async(Request(key, loader, UNSET, tags, owner))


def _tags_of(tags: Callable[..., Iterable[str]], call: Any) -> tuple[str, ...]:
    return checked_tags(tags(*call.args, **call.keywords))


def _check(function: Any) -> None:
    if not callable(function):
        raise TypeError(f"@cached decorates a function, not {function!r}; options are keywords, as in @cached(ttl='5m')")
    target = _unwrapped(function)
    if any(map(_yields, (target, getattr(target, "__call__", None)))):  # noqa: B004 - looks into it
        raise TypeError(
            f"@cached cannot keep what {_label(function)}() yields: a generator can be read only once. "
            f"Return a list or a tuple instead"
        )


def _yields(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, partial):
        function = function.func
    return function


def _label(function: Callable[..., Any]) -> str:
    """Return the module and the qualified name of `function`, or of the class of a callable object."""
    named = _unwrapped(function)
    named = named if hasattr(named, "__qualname__") else type(named)
    label = f"{named.__module__}.{named.__qualname__}"
    if label.endswith("<lambda>"):  # all of a module have one name
        label += f":{inspect.unwrap(named).__code__.co_firstlineno}"
    return label


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether `function` is written in a class body and takes its instance or class first."""
    scope, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    if not scope or scope.endswith("<locals>"):
        return False
    try:
        return next(iter(inspect.signature(function).parameters), None) in ("self", "cls")
    except ValueError:  # some built-in functions have no signature
        return False


def _check_instance(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    scope, _, name = call.__qualname__.rpartition(".")
    if args:
        instance = args[0]
        classes = inspect.getmro(instance if isinstance(instance, type) else instance.__class__)
        # Not by name: many classes have a `get` or a `title`, and the method may be an alias or private.
        if any(cls.__qualname__ == scope or any(_is_around(value, call) for value in vars(cls).values()) for cls in classes):
            return
    given = f"not {args[0]!r}" if args else "which is missing"
    raise TypeError(f"the first argument of {scope}.{name}.invalidate() is the instance, {given}")


def _is_around(attribute: object, call: Callable[..., Any]) -> bool:
    """Whether an attribute of a class is `call`, under whatever decorators."""
    try:
        for _ in range(MAX_DECORATORS):  # a mock has a `__wrapped__` without end
            if attribute is call:
                return True
            attribute = getattr(attribute, "fget", None) or getattr(attribute, "__wrapped__", None)
    except Exception:  # noqa: BLE001 - looking at an attribute of a class may run its code
        return False
    return False


def _explain(label: str, error: TypeError, values: dict[str, Any]) -> TypeError:
    """Return the error to raise when the key of a call has no hash: it names the argument."""
    for name, value in values.items():
        try:
            hash(value)
        except TypeError:
            return TypeError(
                f"{label}() cannot be cached by its argument {name}={reprlib.repr(value)}, which is not hashable: pass a "
                f"hashable value, or @cached(key=...) with a function that makes a key of the arguments"
            )
    return error


def _explain_key(label: str, error: TypeError, _: dict[str, Any]) -> TypeError:
    error.add_note(f"The key= of {label}() raised this, or returned a value that is not hashable.")
    return error
