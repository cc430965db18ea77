"""Help for the tests of caches with tiers: a tier whose calls can be stopped midway, and caches that are peers in one process."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_perfopt.errors import TierError
from otel_perfopt.testing import DictTier, ManualClock
from otel_perfopt.tiers import Change, Found, Mark, Record, Tier, TierUsage
from tests.cache.callers import Clock
from tests.cache.support import Gate, new_cache

NOW = 1_000_000.0
"""The time of day at which tests begin."""


class Stops(Tier):
    """A tier whose calls are counted, and can be stopped before or after they are done.

    Args:
        tier: what does the work.

    Attributes:
        calls: how often each method was called.
        read_keys: the keys of each call of `read`.
        before: for each method, a gate before it is done.
        after: the same for after it.
        broken: the methods that fail; all of them if the tier is away.
    """

    kind = "dict"

    def __init__(self, tier: DictTier) -> None:
        self.tier = tier
        self.kind = tier.kind  # type: ignore[misc]
        self.calls: Counter[str] = Counter()
        self.read_keys: list[int] = []
        self.before: dict[str, Gate] = {}
        self.after: dict[str, Gate] = {}
        self.broken: set[str] = set()
        self.is_away = False
        self.error: Exception = TierError("the tier is away")

    def read(self, keys: Sequence[bytes]) -> Found:
        """Return records."""
        self.read_keys.append(len(keys))
        return self._call("read", keys)  # type: ignore[no-any-return]

    def mark(self) -> Mark:
        """Return a mark."""
        return self._call("mark")

    def write(self, records: Mapping[bytes, Record], mark: Mark, *, replaces: bool = False) -> None:
        """Keep records."""
        self._call("write", records, mark, replaces=replaces)

    def delete(self, keys: Sequence[bytes]) -> bool:
        """Forget keys."""
        return self._call("delete", keys)  # type: ignore[no-any-return]

    def expire(self, keys: Sequence[bytes]) -> bool:
        """Make records stale."""
        return self._call("expire", keys)  # type: ignore[no-any-return]

    def invalidate_tag(self, tag: str) -> None:
        """Forget a tag."""
        self._call("invalidate_tag", tag)

    def clear(self) -> None:
        """Forget everything."""
        self._call("clear")

    def watch(self, on_change: Callable[[Change], None]) -> None:
        """Watch; what is told may be stopped, too."""

        def told(change: Change) -> None:
            self._stop(self.before, "told")
            on_change(change)
            self.calls["told"] += 1

        self._call("watch", told)

    def add_counts(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add figures."""
        return self._call("add_counts", counts)  # type: ignore[no-any-return]

    def usage(self) -> TierUsage:
        """Return how much there is."""
        return self.tier.usage()

    def flush(self) -> None:
        """Flush."""
        self._call("flush")

    def close(self) -> None:
        """Close."""
        self._call("close")

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        self.calls[method] += 1
        self._stop(self.before, method)
        if self.is_away or method in self.broken:
            raise self.error
        result = getattr(self.tier, method)(*args, **options)
        self._stop(self.after, method)
        return result

    @staticmethod
    def _stop(gates: dict[str, Gate], method: str) -> None:
        if method in gates:
            gates.pop(method)()


class Site:
    """Caches that share what is behind them, each as if it were a process of its own.

    Args:
        options: of all caches.
    """

    def __init__(self, **options: Any) -> None:
        self.clock: Clock | ManualClock = Clock()
        self.wall = Clock(NOW)
        self.shared = DictTier(clock=self.wall)
        self._options = options

    def cache(self, *, name: str = "test", **options: Any) -> tuple[Any, Stops]:
        """Make one more cache, and return it with its tier."""
        tier = Stops(self.shared.peer())
        given = {"clock": self.clock, "wall_clock": self.wall, "tiers": [tier], **self._options, **options}
        return new_cache(name, **given), tier

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        self.wall.advance(seconds)

    def settle(self) -> None:
        """Return when all caches were told of what the others have changed."""
        self.shared.settle()

    def records(self) -> dict[bytes, Record]:
        """What is in the tier for everybody."""
        return {key: found for key in list(self.shared._store.records) if (found := self.shared._store.valid(key)) is not None}
