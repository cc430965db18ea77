"""The telemetry of pools: their counts, and decorators that put it on the slow paths of any pool class."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

from opentelemetry import trace
from typing_extensions import override

from otel_perfopt._core.cells import Counts
from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.family import Family, Series
from otel_perfopt.telemetry.latency import Latency
from otel_perfopt.telemetry.names import Metric
from otel_perfopt.telemetry.spans import Timed, Traced
from otel_perfopt.telemetry.wrapping import label_of, wrap_in

__all__ = ("DB_POOLS", "POOLS", "PoolCounts", "PoolMetrics", "metrics_of", "observed_create", "observed_pool", "observed_wait")

F = TypeVar("F", bound=Callable[..., Any])

DESTROY_REASONS = ("idle", "lifetime", "invalid", "reset", "requested", "lost", "drain", "resize", "close")


class PoolCounts(Counts):
    """What one pool has counted."""

    __slots__ = ("acquires", "created", "leaks", "rejected", "timeouts", *(f"destroyed_{reason}" for reason in DESTROY_REASONS))

    acquires: int
    created: int
    leaks: int
    rejected: int
    timeouts: int

    def destroyed(self, reason: str) -> None:
        """Count a destroyed resource."""
        field = f"destroyed_{reason}"
        setattr(self, field, getattr(self, field) + 1)

    def destroyed_by_reason(self) -> dict[str, int]:
        """Return how many resources were destroyed, for each reason that there was."""
        counts = {reason: getattr(self, f"destroyed_{reason}") for reason in DESTROY_REASONS}
        return {reason: count for reason, count in counts.items() if count}


class DbPoolCounts(Counts):
    """What the semantic conventions count of a connection pool."""

    __slots__ = ("timeouts",)

    timeouts: int


POOLS = Family(
    names.POOL_NAME,
    PoolCounts,
    series={
        "acquires": Series(names.POOL_ACQUIRES, {}),
        "created": Series(names.POOL_CREATED, {}),
        "leaks": Series(names.POOL_LEAKS, {}),
        "rejected": Series(names.POOL_REJECTED, {}),
        "timeouts": Series(names.POOL_TIMEOUTS, {}),
        **{f"destroyed_{reason}": Series(names.POOL_DESTROYED, {names.DESTROY_REASON: reason}) for reason in DESTROY_REASONS},
    },
)
DB_POOLS = Family(names.DB_POOL_NAME, DbPoolCounts, series={"timeouts": Series(names.DB_TIMEOUTS, {})})


class PoolMetrics(NamedTuple):
    """Where the figures of a pool go."""

    family: Family[Any]
    states: Metric
    idle_max: Metric | None
    idle_min: Metric
    maximum: Metric
    pending: Metric
    create_time: Metric
    wait_time: Metric
    use_time: Metric


_METRICS = {
    "perfopt": PoolMetrics(
        POOLS,
        names.POOL_COUNT,
        None,
        names.POOL_IDLE_MIN,
        names.POOL_MAX,
        names.POOL_PENDING_REQUESTS,
        names.POOL_CREATE_TIME,
        names.POOL_WAIT_TIME,
        names.POOL_USE_TIME,
    ),
    "db": PoolMetrics(
        DB_POOLS,
        names.DB_COUNT,
        names.DB_IDLE_MAX,
        names.DB_IDLE_MIN,
        names.DB_MAX,
        names.DB_PENDING_REQUESTS,
        names.DB_CREATE_TIME,
        names.DB_WAIT_TIME,
        names.DB_USE_TIME,
    ),
}


def metrics_of(semconv: Literal["perfopt", "db"]) -> PoolMetrics:
    """Return where the figures of a pool go: the library's own metrics, or those of the database conventions."""
    return _METRICS[semconv]


class _Create(Timed):
    """Spans and times one creation."""

    __slots__ = ("_metrics", "_pool")

    def __init__(self, pool: Any) -> None:
        self._pool = names.clean(pool.name)
        self._metrics = getattr(pool, "metrics", _METRICS["perfopt"])
        super().__init__(f"create {self._pool}", {names.POOL_NAME: self._pool})

    @override
    def latency(self, error: BaseException | None) -> Latency:
        if error is None:
            return self._metrics.family.latency(self._pool, self._metrics.create_time)
        # The database conventions have no place for these.
        return POOLS.latency(self._pool, names.POOL_CREATE_TIME, names.error_type(error))


class _Wait(Traced):
    """Spans the wait of a caller, with a link to the creation of what it got."""

    __slots__ = ()

    def __init__(self, pool: str) -> None:
        pool = names.clean(pool)
        super().__init__(f"acquire {pool}", {names.POOL_NAME: pool})

    def link(self, result: Any) -> None:
        """Link the span to the creation of the resource, if it was created for this caller."""
        origin = getattr(result, "origin", None)
        if isinstance(origin, trace.SpanContext) and origin.is_valid and self.span.is_recording():
            self.span.add_link(origin)


class _Obtain:
    """Counts and times one caller of a pool that is not this library's."""

    __slots__ = ("_counts", "_start", "_wait_time")

    def __init__(self, counts: PoolCounts, wait_time: Latency) -> None:
        self._counts, self._wait_time = counts, wait_time

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self._counts.acquires += 1
            self._wait_time.record(time.perf_counter() - self._start)
        elif isinstance(error, TimeoutError):
            self._counts.timeouts += 1


def observed_create(function: F) -> F:
    """Decorate the method of a pool that makes a resource: a span ``create {name}``, and how long it took.

    The pool has its name in ``name``, and where its figures go in ``metrics``, if not to the library's own metrics.
    """
    return wrap_in(function, lambda pool, _: _Create(pool))


def observed_wait(function: F) -> F:
    """Decorate the method of a pool in which a caller waits: a span ``acquire {name}``.

    If what the method returns has an attribute ``origin`` with a span context, the span is linked to it.
    """
    return wrap_in(function, lambda pool, _: _Wait(pool.name), _Wait.link)


def observed_pool(name: str | None = None) -> Callable[[F], F]:
    """Decorate the function that obtains a resource from a pool that is not this library's: acquires, timeouts and waits.

    What it raises counts as a timeout if it is a `TimeoutError`, and not at all otherwise.

    Args:
        name: the name of the pool; None for the module and the qualified name of the function.

    >>> import queue
    >>> connections = queue.SimpleQueue()
    >>> connections.put("connection 1")
    >>> acquire = observed_pool("connections")(lambda: connections.get(timeout=1))
    >>> acquire()
    'connection 1'
    """

    def decorate(function: F) -> F:
        observed = wrap_in(function, lambda _instance, _args: _Obtain(counts, wait_time))
        pool = name or label_of(function)
        wait_time = POOLS.latency(pool, names.POOL_WAIT_TIME)
        counts = POOLS.join(pool, observed)  # read for as long as the decorated function lives
        return observed

    return decorate
