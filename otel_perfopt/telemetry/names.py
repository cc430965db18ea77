"""The one table of names: every metric and attribute with its unit and meaning.

Keys and values of caches are never attributes of a metric: each different one would be a time series of its own.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ("METRICS", "SCOPE", "Metric")

SCOPE = "otel_perfopt"
"""The name of the meter, the tracer and the logger."""

OTHER = "other"
"""Stands for the names beyond the limit of names per kind."""

CACHE_NAME = "perfopt.cache.name"
CACHE_RESULT = "perfopt.cache.result"
CACHE_TIER = "perfopt.cache.tier"
EVICTION_REASON = "perfopt.cache.eviction.reason"
INVALIDATION_REASON = "perfopt.cache.invalidation.reason"
POOL_NAME = "perfopt.pool.name"
POOL_STATE = "perfopt.pool.state"
DESTROY_REASON = "perfopt.pool.destroy.reason"
DB_POOL_NAME = "db.client.connection.pool.name"
DB_POOL_STATE = "db.client.connection.state"
BATCH_NAME = "perfopt.batch.name"
FLUSH_REASON = "perfopt.batch.flush.reason"
LAZY_NAME = "perfopt.lazy.name"
OPERATION_NAME = "perfopt.operation.name"
EVENT_NAME = "perfopt.event.name"
ERROR_TYPE = "error.type"
ERROR_TYPE_OTHER = "_OTHER"

MEMORY_TIER = "memory"

SECONDS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket boundaries of durations: those of the semantic conventions, and three below for in-process work."""

ITEMS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
"""Bucket boundaries of numbers of items."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: the name of the instrument.
        kind: the instrument; counters, up-down counters and gauges are observable.
        unit: in UCUM.
        description: what it counts or measures.
        attributes: which attributes its points can have.
    """

    name: str
    kind: Literal["counter", "up-down counter", "gauge", "histogram"]
    unit: str
    description: str
    attributes: tuple[str, ...]

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The bucket boundaries of a histogram."""
        return SECONDS if self.unit == "s" else ITEMS


CACHE_REQUESTS = Metric(
    "perfopt.cache.requests",
    "counter",
    "{request}",
    "Look-ups, by their result: a hit was answered from a tier, a miss was not; stale is an old value for want of a new one.",
    (CACHE_NAME, CACHE_RESULT, CACHE_TIER),
)
CACHE_EVICTIONS = Metric(
    "perfopt.cache.evictions",
    "counter",
    "{eviction}",
    "Entries that left by themselves: for the number of entries, for their weight, or because they had expired.",
    (CACHE_NAME, EVICTION_REASON),
)
CACHE_INVALIDATIONS = Metric(
    "perfopt.cache.invalidations",
    "counter",
    "{invalidation}",
    "Invalidations that were asked for: deletes and expiries of a key, of a tag, and clears of the whole cache.",
    (CACHE_NAME, INVALIDATION_REASON),
)
CACHE_REFRESHES = Metric(
    "perfopt.cache.refreshes",
    "counter",
    "{refresh}",
    "Loads of values that were fresh still, started ahead of time.",
    (CACHE_NAME,),
)
CACHE_TIER_ERRORS = Metric(
    "perfopt.cache.tier.errors",
    "counter",
    "{error}",
    "Calls of a tier behind the memory that failed; the cache went on without it.",
    (CACHE_NAME, CACHE_TIER, ERROR_TYPE),
)
CACHE_BREAKER_OPEN = Metric(
    "perfopt.cache.breaker.open",
    "up-down counter",
    "{breaker}",
    "1 while a tier that keeps failing is left alone for a while, otherwise 0.",
    (CACHE_NAME, CACHE_TIER),
)
CACHE_ENTRY_COUNT = Metric(
    "perfopt.cache.entry.count",
    "up-down counter",
    "{entry}",
    "Entries in memory, those included that have expired and were not swept yet.",
    (CACHE_NAME,),
)
CACHE_ENTRY_LIMIT = Metric(
    "perfopt.cache.entry.limit",
    "up-down counter",
    "{entry}",
    "The most entries; absent without a limit.",
    (CACHE_NAME,),
)
CACHE_SIZE = Metric(
    "perfopt.cache.size",
    "up-down counter",
    "By",
    "Memory of keys and values, estimated from a sample of the entries.",
    (CACHE_NAME,),
)
CACHE_LOAD_DURATION = Metric("perfopt.cache.load.duration", "histogram", "s", "Time that loads took.", (CACHE_NAME, ERROR_TYPE))
CACHE_LOAD_IN_FLIGHT = Metric("perfopt.cache.load.in_flight", "up-down counter", "{load}", "Loads in progress.", (CACHE_NAME,))
CACHE_LOAD_WAITERS = Metric(
    "perfopt.cache.load.waiters",
    "up-down counter",
    "{caller}",
    "Callers that wait for a load which another caller started.",
    (CACHE_NAME,),
)
POOL_COUNT = Metric(
    "perfopt.pool.count",
    "up-down counter",
    "{resource}",
    "Resources that are open, by state: idle, or used, which includes those being validated or reset.",
    (POOL_NAME, POOL_STATE),
)
POOL_MAX = Metric("perfopt.pool.max", "up-down counter", "{resource}", "The most resources.", (POOL_NAME,))
POOL_IDLE_MIN = Metric(
    "perfopt.pool.idle.min",
    "up-down counter",
    "{resource}",
    "The resources that are kept even if nobody uses them.",
    (POOL_NAME,),
)
POOL_PENDING_REQUESTS = Metric(
    "perfopt.pool.pending_requests", "up-down counter", "{request}", "Callers that wait for a resource.", (POOL_NAME,)
)
POOL_ACQUIRES = Metric("perfopt.pool.acquires", "counter", "{request}", "Callers that got a resource.", (POOL_NAME,))
POOL_TIMEOUTS = Metric(
    "perfopt.pool.timeouts", "counter", "{timeout}", "Callers that got no resource before their deadline.", (POOL_NAME,)
)
POOL_REJECTED = Metric(
    "perfopt.pool.rejected", "counter", "{request}", "Callers that were refused because too many waited already.", (POOL_NAME,)
)
POOL_LEAKS = Metric(
    "perfopt.pool.leaks",
    "counter",
    "{resource}",
    "Resources that were held for suspiciously long, or were dropped without being released.",
    (POOL_NAME,),
)
POOL_CREATED = Metric("perfopt.pool.created", "counter", "{resource}", "Resources that were created.", (POOL_NAME,))
POOL_DESTROYED = Metric(
    "perfopt.pool.destroyed", "counter", "{resource}", "Resources that were destroyed, by reason.", (POOL_NAME, DESTROY_REASON)
)
POOL_CREATE_TIME = Metric(
    "perfopt.pool.create_time", "histogram", "s", "Time that it took to create a resource.", (POOL_NAME, ERROR_TYPE)
)
POOL_WAIT_TIME = Metric("perfopt.pool.wait_time", "histogram", "s", "Time that it took to obtain a resource.", (POOL_NAME,))
POOL_USE_TIME = Metric(
    "perfopt.pool.use_time", "histogram", "s", "Time between obtaining a resource and returning it.", (POOL_NAME,)
)

DB_COUNT = Metric(
    "db.client.connection.count",
    "up-down counter",
    "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
    (DB_POOL_NAME, DB_POOL_STATE),
)
DB_IDLE_MAX = Metric(
    "db.client.connection.idle.max",
    "up-down counter",
    "{connection}",
    "The maximum number of idle open connections allowed.",
    (DB_POOL_NAME,),
)
DB_IDLE_MIN = Metric(
    "db.client.connection.idle.min",
    "up-down counter",
    "{connection}",
    "The minimum number of idle open connections allowed.",
    (DB_POOL_NAME,),
)
DB_MAX = Metric(
    "db.client.connection.max",
    "up-down counter",
    "{connection}",
    "The maximum number of open connections allowed.",
    (DB_POOL_NAME,),
)
DB_PENDING_REQUESTS = Metric(
    "db.client.connection.pending_requests",
    "up-down counter",
    "{request}",
    "The number of current pending requests for an open connection.",
    (DB_POOL_NAME,),
)
DB_TIMEOUTS = Metric(
    "db.client.connection.timeouts",
    "counter",
    "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
    (DB_POOL_NAME,),
)
DB_CREATE_TIME = Metric(
    "db.client.connection.create_time", "histogram", "s", "The time it took to create a new connection.", (DB_POOL_NAME,)
)
DB_WAIT_TIME = Metric(
    "db.client.connection.wait_time",
    "histogram",
    "s",
    "The time it took to obtain an open connection from the pool.",
    (DB_POOL_NAME,),
)
DB_USE_TIME = Metric(
    "db.client.connection.use_time",
    "histogram",
    "s",
    "The time between borrowing a connection and returning it to the pool.",
    (DB_POOL_NAME,),
)

BATCH_QUEUE_SIZE = Metric("perfopt.batch.queue.size", "up-down counter", "{item}", "Items that wait for a batch.", (BATCH_NAME,))
BATCH_QUEUE_CAPACITY = Metric(
    "perfopt.batch.queue.capacity",
    "up-down counter",
    "{item}",
    "The most items that may wait; absent without a limit.",
    (BATCH_NAME,),
)
BATCH_IN_FLIGHT = Metric("perfopt.batch.in_flight", "up-down counter", "{batch}", "Batches in progress.", (BATCH_NAME,))
BATCH_ITEMS = Metric(
    "perfopt.batch.items",
    "counter",
    "{item}",
    "Items that are done with; failed ones have an error type.",
    (BATCH_NAME, ERROR_TYPE),
)
BATCH_FLUSHES = Metric(
    "perfopt.batch.flushes",
    "counter",
    "{batch}",
    "Batches that were handed to the function, by reason.",
    (BATCH_NAME, FLUSH_REASON),
)
BATCH_SIZE = Metric("perfopt.batch.size", "histogram", "{item}", "Items in a batch.", (BATCH_NAME,))
BATCH_DURATION = Metric("perfopt.batch.duration", "histogram", "s", "Time that batches took.", (BATCH_NAME, ERROR_TYPE))
BATCH_WAIT_TIME = Metric(
    "perfopt.batch.wait_time",
    "histogram",
    "s",
    "Time that the first item of a batch waited until the batch began.",
    (BATCH_NAME,),
)

LAZY_LOAD_DURATION = Metric("perfopt.lazy.load.duration", "histogram", "s", "Time that lazy loads took.", (LAZY_NAME, ERROR_TYPE))
OPERATION_DURATION = Metric(
    "perfopt.operation.duration", "histogram", "s", "Time that measured operations took.", (OPERATION_NAME, ERROR_TYPE)
)
OPERATION_MEMORY_DELTA = Metric(
    "perfopt.operation.memory.delta",
    "gauge",
    "By",
    "Mean change of the process's resident memory over the last 100 calls that were tracked.",
    (OPERATION_NAME,),
)

EVENTS_EMITTED = Metric(
    "perfopt.events.emitted", "counter", "{event}", "Events that were emitted; an aggregated one counts once.", (EVENT_NAME,)
)
EVENTS_DELIVERED = Metric("perfopt.events.delivered", "counter", "{event}", "Calls of subscribers that returned.", (EVENT_NAME,))
EVENTS_FAILED = Metric(
    "perfopt.events.failed",
    "counter",
    "{event}",
    "Calls of subscribers, and of log record processors, that raised, and events that went too deep.",
    (EVENT_NAME,),
)

METRICS: tuple[Metric, ...] = (
    CACHE_REQUESTS,
    CACHE_EVICTIONS,
    CACHE_INVALIDATIONS,
    CACHE_REFRESHES,
    CACHE_TIER_ERRORS,
    CACHE_BREAKER_OPEN,
    CACHE_ENTRY_COUNT,
    CACHE_ENTRY_LIMIT,
    CACHE_SIZE,
    CACHE_LOAD_DURATION,
    CACHE_LOAD_IN_FLIGHT,
    CACHE_LOAD_WAITERS,
    POOL_COUNT,
    POOL_MAX,
    POOL_IDLE_MIN,
    POOL_PENDING_REQUESTS,
    POOL_ACQUIRES,
    POOL_TIMEOUTS,
    POOL_REJECTED,
    POOL_LEAKS,
    POOL_CREATED,
    POOL_DESTROYED,
    POOL_CREATE_TIME,
    POOL_WAIT_TIME,
    POOL_USE_TIME,
    DB_COUNT,
    DB_IDLE_MAX,
    DB_IDLE_MIN,
    DB_MAX,
    DB_PENDING_REQUESTS,
    DB_TIMEOUTS,
    DB_CREATE_TIME,
    DB_WAIT_TIME,
    DB_USE_TIME,
    BATCH_QUEUE_SIZE,
    BATCH_QUEUE_CAPACITY,
    BATCH_IN_FLIGHT,
    BATCH_ITEMS,
    BATCH_FLUSHES,
    BATCH_SIZE,
    BATCH_DURATION,
    BATCH_WAIT_TIME,
    LAZY_LOAD_DURATION,
    OPERATION_DURATION,
    OPERATION_MEMORY_DELTA,
    EVENTS_EMITTED,
    EVENTS_DELIVERED,
    EVENTS_FAILED,
)


def clean(text: str) -> str:
    r"""Return `text` without lone surrogates, for which an exporter would refuse everything that it was about to send.

    >>> clean("caf\xe9 \udcff")
    'café ?'
    """
    return text.encode("utf-8", "replace").decode()


def error_type(error: BaseException) -> str:
    """Return the ``error.type`` of an exception: its class with its module, without the module for built-in ones.

    >>> error_type(ValueError("x"))
    'ValueError'
    """
    cls = type(error)
    return clean(cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}")
