"""The options of a pool, checked once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError

__all__ = ("CLOSE_TIMEOUT", "Options", "check_max_size", "seconds")

CLOSE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the constructor of a pool takes; times in seconds, infinite for no limit.

    Raises:
        ConfigurationError: an option has a value that cannot work.
    """

    min_size: int
    max_size: int
    acquire_timeout: float
    idle_timeout: float
    max_lifetime: float
    validate: Callable[[Any], Any] | None
    reset: Callable[[Any], Any] | None
    dispose: Callable[[Any], Any] | None
    max_waiting: int | None
    idle_order: str
    leak_after: float
    semconv: Literal["perfopt", "db"]

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> Self:
        """Return the options among the arguments of a constructor."""
        found = {option.name: given[option.name] for option in fields(cls)}
        for option in ("acquire_timeout", "idle_timeout", "max_lifetime", "leak_after"):
            found[option] = seconds(option, found[option], allow_zero=option == "acquire_timeout")
        return cls(**found)

    def __post_init__(self) -> None:
        _check_count("min_size", self.min_size, least=0)
        check_max_size(self.max_size, self.min_size)
        if self.max_waiting is not None:
            _check_count("max_waiting", self.max_waiting, least=0)
        for option in ("validate", "reset", "dispose"):
            hook = getattr(self, option)
            if hook is not None and not callable(hook):
                raise ConfigurationError(f"{option}={hook!r} must be callable with a resource, or None")
        _check_choice("idle_order", self.idle_order, ("lifo", "fifo"))
        _check_choice("semconv", self.semconv, ("perfopt", "db"))


def check_max_size(max_size: Any, min_size: int) -> None:
    """Refuse a `max_size` that cannot work."""
    _check_count("max_size", max_size, least=1)
    if max_size < min_size:
        raise ConfigurationError(f"max_size={max_size} is below min_size={min_size}; raise it, or lower min_size")


def seconds(option: str, value: Duration | None, *, allow_zero: bool = False) -> float:
    """Return an option in seconds; infinity for None.

    Raises:
        ConfigurationError: the value is no duration that has a meaning here.
    """
    if value is None:
        return math.inf
    try:
        return to_seconds(value, option=option, allow_zero=allow_zero)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None


def _check_count(option: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{option}={value!r} must be a whole number, {least} or more")


def _check_choice(option: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{option}={value!r} must be {' or '.join(map(repr, choices))}")
