"""Faults on purpose: calls that fail, take their time or lie, at random, and the same ones again with the same seed."""

import asyncio
import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random, SystemRandom
from typing import Any, NamedTuple, TypeVar, cast

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry import clocks, instruments
from otel_perfopt.telemetry.wrapping import Wrapper, label_of, plain_function

__all__ = ("Fault", "Faults")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
ErrorMaker = Callable[[str], BaseException]


class Fault(NamedTuple):
    """What happens to one call.

    Attributes:
        number: which call it is; the first one is 1.
        delay: how many seconds it waits first.
        error: what makes its error, of a message; None if it does not fail.
        lies: whether its result is spoilt.
    """

    number: int
    delay: float = 0.0
    error: ErrorMaker | None = None
    lies: bool = False


class Faults:
    """Decides what happens to each call of what it wraps; for any number of threads and event loops.

    Calls are numbered as they come, and the seed decides about each number. So one caller meets the same faults in every run,
    and a rate can be raised without losing the faults that there were.

    Args:
        seed: of the random numbers; None takes a new one. The repr and the messages of errors tell it.
        failure_rate: how many of the calls fail, from 0 to 1.
        errors: what they fail with, one or the other: exception classes, or functions that make an exception of a message.
        delay: how long calls wait, as a duration or as the shortest and the longest one.
        delay_rate: how many of the calls do, from 0 to 1.
        lie: returns what to return instead of a result that it is given.
        lie_rate: how many of the results it is given, from 0 to 1.
        clock: by which calls wait; those that wait by a `ManualClock` go on when it is advanced.
        sleep: called with the seconds, instead of waiting by the clock; awaited, if that is possible, in coroutine functions.

    Attributes:
        seed: the seed.
        calls: how many there were.
        failures: how many of them have failed here.
        lies: how many results were spoilt.
        delayed: how many calls wait at this moment.

    Raises:
        ConfigurationError: an option makes no sense.

    >>> faults = Faults(seed=9, failure_rate=0.5)
    >>> @faults.wrap
    ... def price(article):
    ...     return 5
    >>> price("tea")
    Traceback (most recent call last):
    OSError: fault in call 1 of ...price (seed=9)
    >>> price("tea"), faults
    (5, <Faults seed=9 calls=2 failures=1 lies=0>)
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        failure_rate: float = 0.1,
        errors: ErrorMaker | Sequence[ErrorMaker] = (OSError,),
        delay: Duration | tuple[Duration, Duration] = 0.0,
        delay_rate: float = 1.0,
        lie: Callable[[Any], Any] | None = None,
        lie_rate: float = 0.0,
        clock: clocks.Clock = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.seed = SystemRandom().getrandbits(32) if seed is None else seed
        self._failure_rate = _checked_rate("failure_rate", failure_rate)
        self._delay_rate = _checked_rate("delay_rate", delay_rate)
        self._lie_rate = _checked_rate("lie_rate", lie_rate)
        self._errors = _checked_errors(errors)
        self._delay = _checked_delay(delay)
        if lie is not None and not lie_rate:
            raise ConfigurationError("lie= is never used with lie_rate=0.0: say how many results to spoil, such as lie_rate=0.1")
        self._lie = lie
        self._clock = clock
        self._sleep = sleep
        self.calls = self.failures = self.lies = 0
        self._is_on = True
        self._outages = 0
        self._start_afresh()
        _living.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self.delayed = 0

    def __repr__(self) -> str:
        return f"<Faults seed={self.seed} calls={self.calls} failures={self.failures} lies={self.lies}>"

    def decide(self, number: int) -> Fault:
        """Return what happens to a call by its number, the first one being 1, outages apart.

        >>> faults = Faults(seed=9, failure_rate=0.5)
        >>> [number for number in range(1, 9) if faults.decide(number).error]
        [1, 4, 7, 8]
        """
        draw = _random(f"{self.seed}/{number}")
        # All are drawn, whatever the options: one that is changed does not change the others.
        fails, error, waits, delay, lies = (draw.random() for _ in range(5))
        low, high = self._delay
        return Fault(
            number,
            delay=low + delay * (high - low) if waits < self._delay_rate else 0.0,
            error=self._errors[int(error * len(self._errors))] if fails < self._failure_rate else None,
            lies=lies < self._lie_rate,
        )

    def random(self, number: int) -> Random:
        """Return further random numbers for a call, such as how to lie."""
        return _random(f"{self.seed}/{number}/more")

    # what has faults -----------------------------------------------------------------------------------

    def wrap(self, function: F) -> F:
        """Return a function or coroutine function that meets faults before it calls `function`; also a decorator.

        Raises:
            ConfigurationError: it is to lie, and nobody has said how.
        """
        if self._lie_rate and self._lie is None:
            raise ConfigurationError(f"lie_rate={self._lie_rate!r} needs lie=, a function that returns a spoilt result")
        label = label_of(function)
        if inspect.iscoroutinefunction(plain_function(function)):

            async def faulty_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
                fault = await self.strike_async(label)
                return self.spoil(fault, await wrapped(*args, **kwargs), self._lie)

            return cast("F", Wrapper(function, faulty_async))

        def faulty(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            fault = self.strike(label)
            return self.spoil(fault, wrapped(*args, **kwargs), self._lie)

        return cast("F", Wrapper(function, faulty))

    def strike(self, label: str) -> Fault:
        """Let one more call meet its fault, as a fake of your own may do: wait, then raise, or return what was decided.

        Args:
            label: what is called, for messages.
        """
        fault = self._next()
        if fault.delay and self._sleep is not None:
            self._sleep(fault.delay)
        elif fault.delay:
            self._block(fault.delay)
        self._fail(fault, label)
        return fault

    async def strike_async(self, label: str) -> Fault:
        """Do the same in a coroutine."""
        fault = self._next()
        if fault.delay:
            await self._wait(fault.delay)
        self._fail(fault, label)
        return fault

    def spoil(self, fault: Fault, result: T, lie: Callable[[T], T] | None) -> T:
        """Return `result`, or what `lie` makes of it if that was decided."""
        if not fault.lies or lie is None:
            return result
        with self._lock:
            self.lies += 1
        return lie(result)

    # on and off ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let all calls through, until `start`; they are counted all the same."""
        self._is_on = False

    def start(self) -> None:
        """Go on with the faults."""
        self._is_on = True

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Let all calls fail at once that are made during the block, with the first of the errors.

        >>> faults = Faults(seed=1, failure_rate=0.0)
        >>> with faults.outage():
        ...     faults.strike("the database")
        Traceback (most recent call last):
        OSError: fault in call 1 of the database (seed=1)
        """
        with self._lock:
            self._outages += 1
        try:
            yield
        finally:
            with self._lock:
                self._outages -= 1

    # how it is done --------------------------------------------------------------------------------------

    def _next(self) -> Fault:
        with self._lock:
            self.calls += 1
            number, is_outage = self.calls, self._outages > 0
        if is_outage:
            return Fault(number, error=self._errors[0])
        return self.decide(number) if self._is_on else Fault(number)

    def _fail(self, fault: Fault, label: str) -> None:
        if fault.error is not None:
            with self._lock:
                self.failures += 1
            raise fault.error(f"fault in call {fault.number} of {label} (seed={self.seed})")

    def _block(self, seconds: float) -> None:
        barrier = threading.Lock()
        barrier.acquire()
        # The timer first: whoever sees that a call waits may advance the clock.
        clocks.after(self._clock, seconds, barrier.release)
        with self._waiting():
            barrier.acquire()

    async def _wait(self, seconds: float) -> None:
        if self._sleep is not None:
            slept = self._sleep(seconds)
            if isinstance(slept, Awaitable):
                await slept
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        cancel = clocks.call_later(self._clock, loop, seconds, partial(_wake, woken))
        try:
            with self._waiting():
                await woken
        finally:
            cancel()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self._lock:
            self.delayed += 1
        try:
            yield
        finally:
            with self._lock:
                self.delayed -= 1


def _random(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - to be repeated, not to be secret


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _checked_rate(option: str, rate: float) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ConfigurationError(f"{option}={rate!r} must be a part of the calls, from 0.0 for none to 1.0 for all")
    return float(rate)


def _checked_errors(errors: ErrorMaker | Sequence[ErrorMaker]) -> tuple[ErrorMaker, ...]:
    makers = (errors,) if callable(errors) else tuple(errors)
    if not makers:
        raise ConfigurationError("errors=() must name an exception at least; for calls that do not fail, use failure_rate=0.0")
    for make in makers:
        try:
            made = make("a fault")
        except Exception as error:
            raise ConfigurationError(f"errors={make!r} cannot be made of a message: use a function that makes it") from error
        if not isinstance(made, BaseException):
            raise ConfigurationError(f"errors={make!r} makes {made!r}, which cannot be raised: use exception classes")
    return makers


def _checked_delay(delay: Duration | tuple[Duration, Duration]) -> tuple[float, float]:
    pair = delay if isinstance(delay, tuple) else (delay, delay)
    try:
        low, high = (to_seconds(each, option="delay", allow_zero=True) for each in pair)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{error}; delay= is a duration, or the shortest and the longest one") from None
    if low > high:
        raise ConfigurationError(f"delay={delay!r} must begin with the shortest duration")
    return low, high


_living: "weakref.WeakSet[Faults]" = weakref.WeakSet()


def _after_fork() -> None:
    """The child goes on with the numbers of its parent, but not with its threads."""
    for faults in list(_living):
        faults._start_afresh()


instruments.on_fork(_after_fork)
