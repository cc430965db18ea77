"""Caching and measurement for existing Python services, explained through OpenTelemetry."""

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
from otel_perfopt.telemetry.caches import observed_cache, observed_load
from otel_perfopt.telemetry.spans import traced

__all__ = (
    "BatchClosed",
    "BatchError",
    "Cache",
    "CacheStats",
    "CachedFunction",
    "CachedMethod",
    "ConfigurationError",
    "DuplicateNameWarning",
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
    "UnknownName",
    "cached",
    "create_error",
    "get_cache",
    "get_performance_report",
    "measure_performance",
    "observed_cache",
    "observed_load",
    "record_performance_metric",
    "traced",
)

__version__ = _version("otel-perfopt")
