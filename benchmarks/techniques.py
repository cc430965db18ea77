"""Where the time of a hit goes, and what other ways to build ``@cached`` would cost; for docs/performance.md, without limits.

All of them look up the same entries, with the same clock.
"""

import inspect
import time
from collections.abc import Callable, Hashable
from typing import Any

import wrapt

from benchmarks.cache import BASE, KEYS, LAPS, call_one, one, ours, sync
from benchmarks.harness import Benchmark, Build, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

Call = Callable[..., Any]


class Entry:
    __slots__ = ("expires", "frequency", "value")

    def __init__(self, value: Any, expires: float) -> None:
        self.value = value
        self.expires = expires
        self.frequency = 0


class Counts:
    __slots__ = ("hits",)

    def __init__(self) -> None:
        self.hits = 0


class State:
    """What a hit needs."""

    def __init__(self) -> None:
        self.entries: dict[Hashable, Entry] = {key: Entry(key, time.monotonic() + 3600.0) for key in KEYS}
        self.counts = Counts()


def making(make: Callable[[State], Call]) -> Build:
    """Return the slice of a function that is made around entries."""

    def build(turn: Turn) -> Slice:
        call = make(State())
        return timed(lambda: call_one(call), laps=turn.count(LAPS), operations=len(KEYS))

    return build


# step by step ---------------------------------------------------------------------------------------


def look_up(state: State) -> Call:
    find = state.entries.get

    def call(key: str) -> Any:
        entry = find(key)
        return None if entry is None else entry.value

    return call


def and_expiry(state: State) -> Call:
    find, clock = state.entries.get, time.monotonic

    def call(key: str) -> Any:
        entry = find(key)
        if entry is not None and entry.expires > clock():
            return entry.value
        return None

    return call


def and_frequency(state: State) -> Call:
    find, clock = state.entries.get, time.monotonic

    def call(key: str) -> Any:
        entry = find(key)
        if entry is not None and entry.expires > clock():
            if entry.frequency < 3:
                entry.frequency += 1
            return entry.value
        return None

    return call


def and_count(state: State) -> Call:
    find, clock, counts = state.entries.get, time.monotonic, state.counts

    def call(key: str) -> Any:
        entry = find(key)
        if entry is not None and entry.expires > clock():
            if entry.frequency < 3:
                entry.frequency += 1
            counts.hits += 1
            return entry.value
        return None

    return call


# other ways -----------------------------------------------------------------------------------------


def any_arguments(state: State) -> Call:
    find, clock, counts = state.entries.get, time.monotonic, state.counts

    def call(*args: Any, **kwargs: Any) -> Any:
        key = args[0] if len(args) == 1 and not kwargs else (args, tuple(sorted(kwargs.items())))
        entry = find(key)
        if entry is not None and entry.expires > clock():
            if entry.frequency < 3:
                entry.frequency += 1
            counts.hits += 1
            return entry.value
        return None

    return call


def callable_object(state: State) -> Call:
    class Cached:
        __slots__ = ("_clock", "_counts", "_find")

        def __init__(self) -> None:
            self._find, self._clock, self._counts = state.entries.get, time.monotonic, state.counts

        def __call__(self, key: str) -> Any:
            entry = self._find(key)
            if entry is not None and entry.expires > self._clock():
                if entry.frequency < 3:
                    entry.frequency += 1
                self._counts.hits += 1
                return entry.value
            return None

    return Cached()


def wrapt_wrapper(state: State) -> Call:
    find, clock, counts = state.entries.get, time.monotonic, state.counts

    def wrapper(_wrapped: Call, _instance: object, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        key = args[0]
        entry = find(key)
        if entry is not None and entry.expires > clock():
            if entry.frequency < 3:
                entry.frequency += 1
            counts.hits += 1
            return entry.value
        return None

    wrapped: Call = wrapt.FunctionWrapper(one, wrapper)
    return wrapped


def bound_signature(state: State) -> Call:
    hit, signature = and_count(state), inspect.signature(one)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return hit(*bound.arguments.values())

    return call


OURS = Contestant("otel_perfopt", sync(ours))

BENCHMARKS = (
    Benchmark(
        "steps",
        "where the time of a hit goes",
        (
            OURS,
            BASE,
            Contestant("a function that returns", making(lambda _: one)),
            Contestant("+ the look-up", making(look_up)),
            Contestant("+ the clock and the expiry", making(and_expiry)),
            Contestant("+ the frequency, for S3-FIFO", making(and_frequency)),
            Contestant("+ the count of hits", making(and_count)),
        ),
    ),
    Benchmark(
        "ways",
        "other ways to build the same hit",
        (
            OURS,
            BASE,
            Contestant("one parameter, by hand", making(and_count)),
            Contestant("*args and **kwargs", making(any_arguments)),
            Contestant("an object with __call__", making(callable_object)),
            Contestant("wrapt.FunctionWrapper", making(wrapt_wrapper)),
            Contestant("inspect.Signature.bind", making(bound_signature)),
        ),
    ),
)
