"""The named caches of the specification: declared here, built at their first use."""

from otel_perfopt.cache.cache import CACHE_REGISTRY, Cache

__all__ = ()

CACHE_REGISTRY.declare("task_specs", lambda: Cache("task_specs", max_size=100, ttl="10m"))
CACHE_REGISTRY.declare("git_info", lambda: Cache("git_info", max_size=500, ttl="1m"))
CACHE_REGISTRY.declare("dependencies", lambda: Cache("dependencies", max_size=200, ttl="1h"))
CACHE_REGISTRY.declare("compilation", lambda: Cache("compilation", max_size=50, ttl="30m"))
