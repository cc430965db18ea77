"""The report: frozen rows, with the keys of the specification first and what goes beyond them after."""

from dataclasses import asdict, dataclass, field
from typing import Any

from otel_perfopt.errors import MissingExtra
from otel_perfopt.telemetry.names import MEMORY_TIER

__all__ = (
    "BatchRow",
    "CacheRow",
    "HotKeyRow",
    "LatencySummary",
    "LazyRow",
    "OperationRow",
    "PerformanceReport",
    "PoolRow",
    "Summary",
)


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Durations in seconds.

    Attributes:
        count: how many.
        total: their sum.
        min: the shortest; 0 if there are none.
        max: the longest.
        p50: the median, within 0.6 %.
        p95: 95 % take at most this long, within 0.6 %.
        p99: 99 % take at most this long, within 0.6 %.
        distribution: pairs of a bound and how many took at most that long, but longer than the bound before.
    """

    count: int = 0
    total: float = 0.0
    min: float = 0.0
    max: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    distribution: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One measured operation; durations in seconds, memory in bytes.

    Attributes:
        count: calls that have ended.
        total_duration: their durations added up.
        min_duration: the shortest.
        max_duration: the longest.
        avg_duration: the mean.
        success_count: calls that succeeded.
        error_count: calls that failed.
        memory_deltas: changes of resident memory over the last 100 tracked calls.
        success_rate: successes per call, from 0 to 1.
        avg_memory_delta: the mean of `memory_deltas`; 0 if there are none.
        p50_duration: the median.
        p95_duration: 95 % of the calls take at most this long.
        p99_duration: 99 % of the calls take at most this long.
        errors: failures by ``error.type``.
        distribution: pairs of a bound and how many calls took at most that long, but longer than the bound before.
    """

    count: int
    total_duration: float
    min_duration: float
    max_duration: float
    avg_duration: float
    success_count: int
    error_count: int
    memory_deltas: list[float]
    success_rate: float
    avg_memory_delta: float
    p50_duration: float
    p95_duration: float
    p99_duration: float
    errors: dict[str, int]
    distribution: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HotKeyRow:
    """A key that many requests of a cache were for.

    Attributes:
        key: the key as text, at most 60 characters in one line.
        requests: how many requests were for it, estimated from a sample.
        share: the same as a share of all requests that the sample is of, from 0 to 1.
    """

    key: str
    requests: int
    share: float


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One cache; sizes in entries unless they say bytes.

    Attributes:
        name: its name.
        size: entries in memory.
        max_size: the most entries; None for no limit.
        hit_count: requests answered with a fresh value, of whatever tier.
        miss_count: requests that no tier could answer.
        hit_rate: hits per request, from 0 to 1; 0 before the first request.
        memory_usage: estimated bytes of keys and values.
        evictions: entries that left by themselves, by reason.
        invalidations: what was asked for: deletes and expiries of keys, invalidations of tags, and clears.
        loads: durations of the loads that succeeded.
        load_errors: failed loads by ``error.type``.
        loads_in_flight: loads in progress.
        load_waiters: callers that wait for a load which another caller started.
        stale_count: requests answered with a stale value for want of a fresh one; neither hits nor misses.
        hits_by_tier: the hits by the tier that had the value, such as ``memory``.
        refreshes: loads of values that were still fresh, started ahead of time.
        tier_errors: calls of the tiers behind the memory that failed, by tier and ``error.type``.
        open_breakers: the tiers that are left alone for a while because they keep failing.
        hot_keys: the keys that most requests were for since the cache was cleared, at most 10.
    """

    name: str
    size: int
    max_size: int | None
    hit_count: int
    miss_count: int
    hit_rate: float
    memory_usage: int
    evictions: dict[str, int]
    invalidations: dict[str, int]
    loads: LatencySummary
    load_errors: dict[str, int]
    loads_in_flight: int
    load_waiters: int
    stale_count: int = 0
    hits_by_tier: dict[str, int] = field(default_factory=dict)
    refreshes: int = 0
    tier_errors: dict[str, dict[str, int]] = field(default_factory=dict)
    open_breakers: list[str] = field(default_factory=list)
    hot_keys: list[HotKeyRow] = field(default_factory=list)

    @property
    def request_count(self) -> int:
        """All requests: hits, misses, and those answered with a stale value."""
        return self.hit_count + self.stale_count + self.miss_count

    @property
    def hits_behind(self) -> dict[str, int]:
        """The hits of the tiers behind the memory that had any."""
        return {tier: count for tier, count in self.hits_by_tier.items() if count and tier != MEMORY_TIER}


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool.

    Attributes:
        name: its name.
        total_created: resources created so far.
        available: resources that are idle now.
        in_use: resources that somebody holds now, and those that are being validated or reset.
        waiting: callers that wait now.
        utilization: resources in use now per `max_size`.
        mean_in_use: how many were in use on average since the process began, without the leases that have not ended yet.
        min_size: resources that are kept even if nobody uses them.
        max_size: the most resources; 0 if nobody knows, as with a pool that is gone.
        acquires: callers that got a resource.
        waited: those of them that had to wait for it; None if nobody knows, as with a pool that is not this library's.
        timeouts: callers that got none before their deadline.
        rejected: callers that were refused because too many waited.
        leaks: resources held for suspiciously long, or dropped without being released.
        destroyed: resources destroyed so far, by reason.
        waits: how long callers took to get a resource; zero for those that did not have to wait.
        uses: how long they kept it.
        creations: how long creations took that succeeded.
        create_errors: failed creations by ``error.type``.
    """

    name: str
    total_created: int
    available: int
    in_use: int
    waiting: int
    utilization: float
    mean_in_use: float
    min_size: int
    max_size: int
    acquires: int
    waited: int | None
    timeouts: int
    rejected: int
    leaks: int
    destroyed: dict[str, int]
    waits: LatencySummary
    uses: LatencySummary
    creations: LatencySummary
    create_errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch processor.

    Attributes:
        name: its name.
        queue_size: items that wait now.
        processing: whether a batch is in progress now.
        in_flight: batches in progress now.
        max_queue: the most items that may wait; None for no limit.
        item_count: items that are done with and did not fail.
        item_errors: items that failed, by ``error.type``.
        flushes: batches so far, by reason.
        mean_size: items per batch.
        max_size: items in the largest batch so far.
        durations: how long batches took that succeeded.
        batch_errors: batches that failed, by ``error.type``.
        waits: how long the first item of a batch waited until the batch began.
    """

    name: str
    queue_size: int
    processing: bool
    in_flight: int
    max_queue: int | None
    item_count: int
    item_errors: dict[str, int]
    flushes: dict[str, int]
    mean_size: float
    max_size: int
    durations: LatencySummary
    batch_errors: dict[str, int]
    waits: LatencySummary


@dataclass(frozen=True, slots=True)
class LazyRow:
    """What is loaded lazily under one name.

    Attributes:
        name: the name.
        loads: durations of the loads that succeeded.
        load_errors: failed loads by ``error.type``.
    """

    name: str
    loads: LatencySummary
    load_errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything in a few figures.

    Attributes:
        total_operations: calls of measured operations.
        total_duration: their durations in seconds, added up.
        cache_hit_rate: hits per request over all caches, from 0 to 1.
        pool_utilization: for each pool, used resources per `max_size`.
        batch_queue_sizes: for each batch processor, the items that wait.
    """

    total_operations: int = 0
    total_duration: float = 0.0
    cache_hit_rate: float = 0.0
    pool_utilization: dict[str, float] = field(default_factory=dict)
    batch_queue_sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """What happened in this process since it began.

    Attributes:
        summary: everything in a few figures.
        operations: measured operations by name.
        caches: caches by name.
        pools: pools by name.
        batches: batch processors by name.
        lazy_loads: what is loaded lazily, by name.
    """

    summary: Summary
    operations: dict[str, OperationRow]
    caches: dict[str, CacheRow]
    pools: dict[str, PoolRow] = field(default_factory=dict)
    batches: dict[str, BatchRow] = field(default_factory=dict)
    lazy_loads: dict[str, LazyRow] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, numbers and strings."""
        return asdict(self)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON.

        Args:
            indent: spaces per level; None for one line.
        """
        import msgspec  # noqa: PLC0415 - only those who ask for JSON pay for it

        text: bytes = msgspec.json.encode(self.to_dict())
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()

    def to_text(self, *, width: int = 80, color: bool = False) -> str:
        """Return the report as tables for a terminal.

        Args:
            width: columns; at least 40.
            color: whether to use terminal colours.
        """
        from otel_perfopt.report.text import render  # noqa: PLC0415 - rich is only for those who read text

        return render(self, width=width, color=color)

    def to_html(self, *, title: str = "Performance report") -> str:
        """Return the report as one HTML page with charts, which needs no network and runs no script.

        Args:
            title: the heading of the page.

        Raises:
            MissingExtra: the extra ``html`` is not installed.
        """
        from otel_perfopt.report.html import render  # noqa: PLC0415 - needs the extra

        return render(self, title=title)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str | None:
        """Return the page for a notebook, in a frame that keeps its styles apart; None, for text, without the extra."""
        try:
            page = self.to_html()
        except MissingExtra:
            return None
        style = "width: 100%; height: 40rem; border: 0; border-radius: 12px"
        from html import escape  # noqa: PLC0415 - only notebooks need it

        return f'<iframe title="Performance report" style="{style}" srcdoc="{escape(page)}"></iframe>'
