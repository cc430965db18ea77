"""Caching and measurement for existing Python services, explained through OpenTelemetry."""

import typing as _typing
from importlib.metadata import version as _version

from otel_perfopt import presets as _presets  # noqa: F401 - declares the named caches
from otel_perfopt.cache import Cache, CachedFunction, CachedMethod, CacheStats, cached, get_cache
from otel_perfopt.errors import (
    BatchClosed,
    BatchError,
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
    UnknownName,
    create_error,
)
from otel_perfopt.measure import measure_performance, record_performance_metric
from otel_perfopt.registry import DuplicateNameWarning
from otel_perfopt.report import PerformanceReport, get_performance_report
from otel_perfopt.telemetry import derived as _derived  # noqa: F401 - makes the events of caches and operations
from otel_perfopt.telemetry.aggregate import emit_aggregated
from otel_perfopt.telemetry.caches import observed_cache, observed_load
from otel_perfopt.telemetry.configure import configure, shutdown
from otel_perfopt.telemetry.events import Event, Subscription, emit, subscribe
from otel_perfopt.telemetry.spans import traced

if _typing.TYPE_CHECKING:
    from otel_perfopt.telemetry.bus import EventBus

__all__ = (
    "BatchClosed",
    "BatchError",
    "Cache",
    "CacheStats",
    "CachedFunction",
    "CachedMethod",
    "ConfigurationError",
    "DuplicateNameWarning",
    "Event",
    "EventBus",
    "LoadCancelled",
    "LoadError",
    "LoadTimeout",
    "MissingExtra",
    "PerfOptError",
    "PerformanceReport",
    "PoolClosed",
    "PoolError",
    "PoolFull",
    "PoolTimeout",
    "QueueFull",
    "ReentrantLoad",
    "Subscription",
    "UnknownName",
    "cached",
    "configure",
    "create_error",
    "emit",
    "emit_aggregated",
    "get_cache",
    "get_performance_report",
    "measure_performance",
    "observed_cache",
    "observed_load",
    "record_performance_metric",
    "shutdown",
    "subscribe",
    "traced",
)

__version__ = _version("otel-perfopt")


def __getattr__(name: str) -> object:
    """Import what needs the SDK when somebody asks for it."""
    if name == "EventBus":
        from otel_perfopt.telemetry.bus import EventBus  # noqa: PLC0415

        return EventBus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
