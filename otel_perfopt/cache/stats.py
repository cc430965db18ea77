"""What a cache says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from otel_perfopt.cache.hot import HotKey

__all__ = ("CacheStats",)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The state of one cache at one moment.

    Attributes:
        name: its name.
        size: entries in memory, those included that have expired and were not swept yet.
        max_size: the most entries; None for no limit.
        hit_count: requests answered without a load.
        hits_by_tier: the same by the tier that had the value.
        miss_count: requests that were not.
        stale_count: requests answered with a stale value, because the load failed or was slow.
        refreshes: loads that were started to replace a value that was still fresh.
        memory_usage: estimated bytes of keys and values.
        weight: the sum of the weights of all entries; without a weigher, their number.
        max_weight: the most weight; None for no limit.
        evictions_capacity: entries that left for the number of entries.
        evictions_weight: entries that left for their weight.
        evictions_expired: entries that left because they had expired.
        loads_in_flight: loads in progress.
        load_waiters: callers that wait for a load which another caller started.
        lifetime: ``hits``, ``misses``, ``stale`` and ``evictions`` since the file of a persistent tier was made, by all
            processes; empty without one.
        hot_keys: the keys that most requests are for, at most 10, estimated from a sample since the cache was cleared;
            empty as long as there are too few samples, and with ``hot_keys=False``.
    """

    name: str
    size: int
    max_size: int | None
    hit_count: int
    hits_by_tier: Mapping[str, int]
    miss_count: int
    stale_count: int
    refreshes: int
    memory_usage: int
    weight: float
    max_weight: float | None
    evictions_capacity: int
    evictions_weight: int
    evictions_expired: int
    loads_in_flight: int
    load_waiters: int
    lifetime: Mapping[str, int]
    hot_keys: tuple[HotKey, ...] = ()

    @property
    def hit_rate(self) -> float:
        """The share of requests that were hits, from 0 to 1; 0 before the first request."""
        requests = self.hit_count + self.stale_count + self.miss_count
        return self.hit_count / requests if requests else 0.0
