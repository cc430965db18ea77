"""The options of a batch processor, checked once."""

import inspect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.telemetry.wrapping import plain_function

__all__ = ("Dedupe", "OnFull", "Options", "Weigher", "check_weight", "is_coroutine_function", "seconds")

OnFull = Literal["wait", "raise", "drop_oldest"]
Weigher = Callable[[Any], float]
Dedupe = Callable[[Any], Hashable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the constructor of a processor takes; see `BatchProcessor`.

    Raises:
        ConfigurationError: an option has a value that cannot work.
    """

    batch_size: int | None
    batch_timeout: Duration
    max_concurrent: int
    max_queue: int | None
    on_full: OnFull
    weigher: Weigher | None
    max_weight: float | None
    dedupe: Dedupe | None

    def __post_init__(self) -> None:
        _check_count("batch_size", self.batch_size, "items, or None for no limit")
        _check_count("max_queue", self.max_queue, "items, or None for no limit")
        if self.max_concurrent is None:
            raise ConfigurationError("max_concurrent=None: how many batches may run at once must be limited, to 1 or more")
        _check_count("max_concurrent", self.max_concurrent, "batches")
        if self.max_queue is not None and self.batch_size is not None and self.max_queue < self.batch_size:
            raise ConfigurationError(
                f"max_queue={self.max_queue} is below batch_size={self.batch_size}, so that no batch would ever be full; "
                f"raise it, or lower batch_size"
            )
        if self.on_full not in ("wait", "raise", "drop_oldest"):
            raise ConfigurationError(f"on_full={self.on_full!r} must be 'wait', 'raise' or 'drop_oldest'")
        _check_callable("weigher", self.weigher, "its weight")
        _check_callable("dedupe", self.dedupe, "its key")
        self._check_max_weight()

    def _check_max_weight(self) -> None:
        if (self.max_weight is None) != (self.weigher is None):
            given, missing = ("max_weight", "weigher") if self.weigher is None else ("weigher", "max_weight")
            raise ConfigurationError(f"{given}= has no effect without {missing}=; give both or neither")
        if self.max_weight is not None and not (_is_number(self.max_weight) and self.max_weight > 0):
            raise ConfigurationError(f"max_weight={self.max_weight!r} must be a positive number, or None for no limit")

    def limits(self) -> dict[str, Any]:
        """Return the limits of the queue and the batches; infinite for none. A full queue makes a full batch."""
        max_queue = math.inf if self.max_queue is None else self.max_queue
        return {
            "batch_size": max_queue if self.batch_size is None else self.batch_size,
            "batch_timeout": seconds("batch_timeout", self.batch_timeout, allow_zero=True),
            "max_concurrent": self.max_concurrent,
            "max_queue": max_queue,
            "max_weight": math.inf if self.max_weight is None else self.max_weight,
        }


def seconds(option: str, value: Duration, *, allow_zero: bool = False) -> float:
    """Return a duration in seconds.

    Raises:
        ConfigurationError: the value is no duration that has a meaning here.
    """
    try:
        return to_seconds(value, option=option, allow_zero=allow_zero)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None


def check_weight(weight: float, item: Any) -> float:
    """Return the weight of an item, or refuse it."""
    if not (_is_number(weight) and weight >= 0):
        raise ValueError(f"the weigher returned {weight!r} for {item!r}: a weight is a number that is not negative")
    return float(weight)


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling `function` makes a coroutine, as far as can be seen without calling it."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(plain_function(function))


def _check_count(option: str, value: Any, what: str) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigurationError(f"{option}={value!r} must be a positive number of {what}")


def _check_callable(option: str, value: Any, what: str) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(f"{option}={value!r} must be callable with an item, and return {what}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
