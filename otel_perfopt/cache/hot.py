"""Hot keys: which keys most requests of a cache are for, by a sample of one request in 128.

Requests are counted down to the next sample. Hits are counted in no other way: the small ints of a countdown take no memory,
and what that saves pays for the question whether it is time. The distance between two samples is random, so that a program
whose requests come in a pattern does not show the same key each time.
"""

from collections import deque
from collections.abc import Callable, Hashable
from random import Random
from typing import Any, NamedTuple

from otel_perfopt._core.hot import SpaceSaving
from otel_perfopt.telemetry.caches import CacheCounts

__all__ = ("Countdown", "HotKey", "HotKeys", "SampledCounts")

TOP = 10
CAPACITY = 64
MEAN_DISTANCE = 128
DISTANCE_BITS = 8
FEW = 3  # samples; of many keys that are all as frequent, some are met twice

chance = Random()  # noqa: S311 - not the one of the module, which programs seed to get the same numbers again


class HotKey(NamedTuple):
    """A key that many requests are for.

    Attributes:
        key: the key; that of a cached method has the instance in place of its identity.
        requests: how many requests were for it, estimated.
        share: the same as a share of all requests, from 0 to 1.
    """

    key: Any
    requests: int
    share: float


class Countdown:
    """Counts requests down to the next sample.

    Attributes:
        left: how many there are to that; ``left -= 1`` is one uninterrupted step under the GIL.
        goal: how many there will have been by then.
    """

    __slots__ = ("goal", "left")

    def __init__(self) -> None:
        self.goal = self.left = 0

    @property
    def count(self) -> int:
        """How many there were so far."""
        return self.goal - self.left

    def wind(self) -> bool:
        """Set another distance, if this one is at its end, and return whether it was: another thread may have been here."""
        distance = chance.getrandbits(DISTANCE_BITS) or MEAN_DISTANCE  # 1 to 255, and 128 on average
        if self.left > 0:
            return False
        # In one piece under the GIL, like `left -= 1`: nothing is called between the question above and the end of this line.
        self.goal, self.left = self.goal + distance, self.left + distance
        return True


class SampledCounts(CacheCounts):
    """What a cache has counted.

    Attributes:
        countdown: that of the hits in memory.
    """

    __slots__ = ("countdown",)

    def __init__(self) -> None:
        self.countdown = Countdown()
        super().__init__()

    @property
    def hits(self) -> int:
        """Requests answered from memory; whoever counts one takes it from the countdown."""
        return self.countdown.count

    @hits.setter
    def hits(self, hits: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - as an int can be
        self.countdown.goal = hits + self.countdown.left


SampledCounts.fields = CacheCounts.fields  # the countdown itself is no count


class HotKeys:
    """The counts of a cache, and its hot keys.

    No lock guards the sketch, because a hit takes none, and a finalizer may come at any time. Who finds it in use takes no
    sample, and leaves it to whoever uses it to forget a key.

    Args:
        is_on: whether to take samples at all.
    """

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on
        self.counts = SampledCounts()
        self._hits, self._others = self.counts.countdown, Countdown()
        self._before = 0  # requests when the sketch was empty
        self._sketch = SpaceSaving(CAPACITY)
        self._due: deque[tuple[Callable[[SpaceSaving, Hashable], object], Hashable]] = deque()
        self._is_in_use = False
        if is_on:
            self._hits.wind()
            self._others.wind()

    @property
    def requests(self) -> int:
        """All requests that the hot keys are a sample of."""
        return self._all_requests() - self._before

    def hit(self, key: Hashable) -> None:
        """Count a hit in memory."""
        self._count(key, self._hits)

    def other(self, key: Hashable) -> None:
        """Count a request that was no hit in memory."""
        self._count(key, self._others)

    def sample(self, key: Hashable, countdown: Countdown) -> object:
        """Take a sample, because a countdown has come to its end with this key; return what is not needed any more."""
        return self._change(SpaceSaving.add, key) if countdown.wind() and not self._is_in_use else None

    def discard(self, key: Hashable) -> object:
        """Forget a key, and return what is not needed any more."""
        return self._change(SpaceSaving.discard, key) if self.is_on else None

    def clear(self) -> object:
        """Forget all keys, and return what held them."""
        dropped, self._sketch = self._sketch, SpaceSaving(CAPACITY)
        self._before = self._all_requests()
        return dropped

    def top(self) -> list[HotKey]:
        """Return the keys that most requests were for, by those samples that are surely theirs."""
        sketch, requests = self._sketch, self.requests
        shares = [(each.key, each.least / sketch.total) for each in sketch.top(TOP) if each.least >= FEW]
        return [HotKey(key, round(share * requests), share) for key, share in shares]

    def reset_after_fork(self) -> None:
        """Forget all keys; another thread of the parent may have been about it."""
        self._is_in_use = False
        self._due.clear()
        self.clear()

    def _count(self, key: Hashable, countdown: Countdown) -> None:
        countdown.left = left = countdown.left - 1
        if left < 1 and self.is_on:
            self.sample(key, countdown)

    def _all_requests(self) -> int:
        return self._hits.count + self._others.count

    def _change(self, change: Callable[[SpaceSaving, Hashable], object], key: Hashable) -> object:
        """Change the sketch, or leave that to whoever is about it; return what is not needed any more."""
        self._due.append((change, key))
        if self._is_in_use:
            return None
        self._is_in_use = True  # in one step with the question, as the end of the loop below with the opposite
        dropped: list[object] = []
        try:
            while self._due:
                change, key = self._due.popleft()
                dropped.append(change(self._sketch, key))
        except Exception:  # noqa: BLE001 - a comparison of keys; whoever made the request did not ask for this one
            dropped.append(self.clear())
        finally:
            self._is_in_use = False
        return dropped
