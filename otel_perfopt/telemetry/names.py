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
OPERATION_NAME = "perfopt.operation.name"
EVENT_NAME = "perfopt.event.name"
ERROR_TYPE = "error.type"
ERROR_TYPE_OTHER = "_OTHER"

MEMORY_TIER = "memory"

SECONDS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket boundaries of durations: those of the semantic conventions, and three below for in-process work."""


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


CACHE_REQUESTS = Metric(
    "perfopt.cache.requests",
    "counter",
    "{request}",
    "Look-ups, by their result: a hit was answered from a tier, a miss was not.",
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
    "Invalidations that were asked for: deletes of a key, expiries of a key, and clears of the whole cache.",
    (CACHE_NAME, INVALIDATION_REASON),
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
    CACHE_ENTRY_COUNT,
    CACHE_ENTRY_LIMIT,
    CACHE_SIZE,
    CACHE_LOAD_DURATION,
    CACHE_LOAD_IN_FLIGHT,
    CACHE_LOAD_WAITERS,
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
