"""Caching, pooling, batching, lazy loading and measurement for existing Python services, explained through OpenTelemetry."""

import typing as _typing

from otel_perfopt import presets as _presets  # noqa: F401 - declares the named caches, pools and batch processor
from otel_perfopt.cache import Cache, CachedFunction, CachedMethod, CacheStats, HotKey, cached, entry_options, get_cache
from otel_perfopt.errors import (
    BatchClosed,
    BatchError,
    BatchTimeout,
    ConfigurationError,
    LoadCancelled,
    LoadError,
    LoadTimeout,
    MissingExtra,
    PerfOptError,
    PoolClosed,
    PoolError,
    PoolFull,
    PoolTimeout,
    QueueFull,
    ReentrantLoad,
    TierError,
    Undecodable,
    Unencodable,
    UnknownName,
    create_error,
)
from otel_perfopt.lazy import LazyFunction, LazyLoader, LazyMethod, create_lazy_loader, lazy
from otel_perfopt.measure import measure_performance, record_performance_metric
from otel_perfopt.registry import DuplicateNameWarning
from otel_perfopt.telemetry import derived as _derived  # noqa: F401 - makes the events of caches and operations
from otel_perfopt.telemetry import lifecycle as _lifecycle  # noqa: F401 - tells at exit what is still collected
from otel_perfopt.telemetry.aggregate import emit_aggregated
from otel_perfopt.telemetry.caches import observed_cache, observed_load
from otel_perfopt.telemetry.events import Event, Subscription, emit, subscribe
from otel_perfopt.telemetry.lazies import observed_lazy
from otel_perfopt.telemetry.spans import traced

if _typing.TYPE_CHECKING:
    from otel_perfopt.batch import AsyncBatchProcessor, BatchProcessor, BatchStats, batched, get_batch_processor
    from otel_perfopt.pool import AsyncResourcePool, PoolStats, ResourcePool, get_pool, pooled
    from otel_perfopt.report import PerformanceReport, get_performance_report
    from otel_perfopt.telemetry.batches import observed_batch
    from otel_perfopt.telemetry.bus import EventBus
    from otel_perfopt.telemetry.configure import configure, shutdown
    from otel_perfopt.telemetry.pools import observed_pool
    from otel_perfopt.telemetry.structured_logs import LogOptions

__all__ = (
    "AsyncBatchProcessor",
    "AsyncResourcePool",
    "BatchClosed",
    "BatchError",
    "BatchProcessor",
    "BatchStats",
    "BatchTimeout",
    "Cache",
    "CacheStats",
    "CachedFunction",
    "CachedMethod",
    "ConfigurationError",
    "DuplicateNameWarning",
    "Event",
    "EventBus",
    "HotKey",
    "LazyFunction",
    "LazyLoader",
    "LazyMethod",
    "LoadCancelled",
    "LoadError",
    "LoadTimeout",
    "LogOptions",
    "MissingExtra",
    "PerfOptError",
    "PerformanceReport",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "QueueFull",
    "ReentrantLoad",
    "ResourcePool",
    "Subscription",
    "TierError",
    "Undecodable",
    "Unencodable",
    "UnknownName",
    "batched",
    "cached",
    "configure",
    "create_error",
    "create_lazy_loader",
    "emit",
    "emit_aggregated",
    "entry_options",
    "get_batch_processor",
    "get_cache",
    "get_performance_report",
    "get_pool",
    "lazy",
    "measure_performance",
    "observed_batch",
    "observed_cache",
    "observed_lazy",
    "observed_load",
    "observed_pool",
    "pooled",
    "record_performance_metric",
    "shutdown",
    "subscribe",
    "traced",
)

_LAZY = {
    "AsyncBatchProcessor": "otel_perfopt.batch",
    "AsyncResourcePool": "otel_perfopt.pool",
    "BatchProcessor": "otel_perfopt.batch",
    "BatchStats": "otel_perfopt.batch",
    "EventBus": "otel_perfopt.telemetry.bus",
    "LogOptions": "otel_perfopt.telemetry.structured_logs",
    "PerformanceReport": "otel_perfopt.report",
    "PoolStats": "otel_perfopt.pool",
    "ResourcePool": "otel_perfopt.pool",
    "batched": "otel_perfopt.batch",
    "configure": "otel_perfopt.telemetry.configure",
    "get_batch_processor": "otel_perfopt.batch",
    "get_performance_report": "otel_perfopt.report",
    "get_pool": "otel_perfopt.pool",
    "observed_batch": "otel_perfopt.telemetry.batches",
    "observed_pool": "otel_perfopt.telemetry.pools",
    "pooled": "otel_perfopt.pool",
    "shutdown": "otel_perfopt.telemetry.configure",
}


def __getattr__(name: str) -> object:
    """Import what is not needed to cache and measure when somebody asks for it; importing the library stays cheap."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("otel-perfopt")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    globals()[name] = value = getattr(import_module(_LAZY[name]), name)
    return value
