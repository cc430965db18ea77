"""How long values count: fresh, worth refreshing, worth serving stale; and how long to wait for a load."""

import math
import random
from dataclasses import dataclass
from typing import Any, Self

from otel_perfopt._core.policies import Entry
from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.errors import ConfigurationError
from otel_perfopt.unset import UNSET, Unset

__all__ = ("RETRY_AFTER", "Lifetimes", "checked_seconds")

RETRY_AFTER = 10.0
"""Seconds, up to a fifth less at random, before a load is tried again that has failed while there was an older value."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The durations of one cache, in seconds; infinite for no limit.

    Attributes: see `Cache`; there, None stands for infinite.
    """

    ttl: float = math.inf
    ttl_jitter: float = 0.0
    refresh_after: float = math.inf
    stale_for: float = 0.0
    soft_timeout: float = math.inf
    hard_timeout: float = math.inf
    error_ttl: float = 0.0

    @classmethod
    def checked(cls, options: dict[str, Any]) -> Self:
        """Return the lifetimes among `options`, which are those of a cache.

        Raises:
            ConfigurationError: one of them has a value that cannot work.
        """
        jitter = options["ttl_jitter"]
        if not isinstance(jitter, int | float) or isinstance(jitter, bool) or not 0 <= jitter < 1:
            raise ConfigurationError(f"ttl_jitter={jitter!r} must be a fraction of the ttl, from 0 to less than 1")
        may_be_zero = ("stale_for", "soft_timeout", "error_ttl")
        seconds = {
            option: checked_seconds(option, options[option], allow_zero=option in may_be_zero)
            for option in ("ttl", "refresh_after", "stale_for", "soft_timeout", "hard_timeout", "error_ttl")
        }
        made = cls(**seconds, ttl_jitter=float(jitter))
        if made.refresh_after != math.inf and made.refresh_after >= made.ttl:
            raise ConfigurationError(
                f"refresh_after={options['refresh_after']!r} has no effect: the ttl of {options['ttl']!r} is over before"
            )
        if made.soft_timeout != math.inf and made.stale_for == 0:
            raise ConfigurationError(
                f"soft_timeout={options['soft_timeout']!r} has no effect without stale_for=, which says how long an expired "
                f"value may be served instead"
            )
        if made.soft_timeout != math.inf and made.soft_timeout >= made.hard_timeout:
            raise ConfigurationError(
                f"soft_timeout={options['soft_timeout']!r} must be shorter than hard_timeout={options['hard_timeout']!r}"
            )
        return made

    @property
    def is_plain(self) -> bool:
        """Whether a value is either there or has to be loaded, and whoever wants it waits for that."""
        return self == Lifetimes(ttl=self.ttl, ttl_jitter=self.ttl_jitter)

    @property
    def has_timeouts(self) -> bool:
        """Whether callers may stop waiting for a load."""
        return min(self.soft_timeout, self.hard_timeout) != math.inf

    def date(self, entry: Entry, now: float, ttl: Duration | Unset | None = UNSET) -> None:
        """Tell a new entry how long it counts from now on; `ttl` overrides that of the cache."""
        seconds = self.ttl if ttl is UNSET else checked_seconds("ttl", ttl)
        if self.ttl_jitter and seconds != math.inf:
            seconds *= 1 - self.ttl_jitter * random.random()  # noqa: S311 - spreads load, guards no secret
        end = now + seconds
        # One object for all three where they are the same, which is a tenth of what an entry takes.
        entry.fresh_until = end
        entry.expires = end if seconds <= self.refresh_after else now + self.refresh_after
        entry.kept_until = end + self.stale_for if self.stale_for else end

    def put_off(self, now: float) -> float:
        """Return when a load may be tried again that fails now, or is about to be tried, while there is an older value."""
        return now + min(RETRY_AFTER, self.ttl) * (1 - 0.2 * random.random())  # noqa: S311


def checked_seconds(option: str, value: Duration | None, *, allow_zero: bool = False) -> float:
    """Return a duration in seconds, infinite for None.

    Raises:
        ConfigurationError: it has a value that cannot work.
    """
    try:
        return math.inf if value is None else to_seconds(value, option=option, allow_zero=allow_zero)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
