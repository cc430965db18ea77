"""What a load that runs once leaves behind: a value or an error, for as long as it counts."""

import math
from dataclasses import dataclass

from otel_perfopt._core.flight import Failed, Loaded

__all__ = ("Kept", "Once")


@dataclass(frozen=True, slots=True)
class Kept:
    """An outcome, and until when it counts."""

    outcome: Loaded | Failed
    expires: float


class Once:
    """The outcome of the last load.

    Args:
        ttl: seconds for which a value counts; None for ever.
        error_ttl: seconds for which an error counts; None for ever, 0 not at all.
    """

    __slots__ = ("_error_ttl", "_kept", "_ttl")

    def __init__(self, *, ttl: float | None, error_ttl: float | None) -> None:
        self._ttl = ttl
        self._error_ttl = error_ttl
        self._kept: Kept | None = None

    def date(self, outcome: Loaded | Failed, now: float) -> Kept | None:
        """Return `outcome` with its expiry; None if it does not count for anybody who comes now."""
        seconds = self._ttl if isinstance(outcome, Loaded) else self._error_ttl
        if seconds == 0:
            return None
        return Kept(outcome, math.inf if seconds is None else now + seconds)

    def keep(self, kept: Kept | None) -> Kept | None:
        """Replace what is kept, None for nothing, and return what was kept before."""
        # One record in one step: whoever reads without a lock sees an outcome with its own expiry.
        before, self._kept = self._kept, kept
        return before

    def find(self, now: float) -> Loaded | Failed | None:
        """Return the outcome that counts now."""
        kept = self._kept
        return kept.outcome if kept is not None and now < kept.expires else None
