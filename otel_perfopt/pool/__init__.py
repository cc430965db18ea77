"""Pools of anything that is expensive to make."""

from otel_perfopt.pool.lookup import get_pool
from otel_perfopt.pool.pooled import pooled
from otel_perfopt.pool.stats import PoolStats
from otel_perfopt.pool.tasks import AsyncLease, AsyncResourcePool
from otel_perfopt.pool.threads import Lease, ResourcePool

__all__ = ("AsyncLease", "AsyncResourcePool", "Lease", "PoolStats", "ResourcePool", "get_pool", "pooled")
