"""Caches: look-ups, loads, and the decorator."""

from otel_perfopt.cache.cache import Cache, get_cache
from otel_perfopt.cache.cached import cached
from otel_perfopt.cache.hot import HotKey
from otel_perfopt.cache.stats import CacheStats
from otel_perfopt.cache.terms import entry_options
from otel_perfopt.cache.typing import CachedFunction, CachedMethod

__all__ = ("Cache", "CacheStats", "CachedFunction", "CachedMethod", "HotKey", "cached", "entry_options", "get_cache")
