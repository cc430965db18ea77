"""Pools by their names."""

from typing import Any, TypeVar, overload

from otel_perfopt.pool.base import BasePool
from otel_perfopt.pool.threads import ResourcePool
from otel_perfopt.registry import POOL_REGISTRY

__all__ = ("get_pool",)

A = TypeVar("A", bound=BasePool[Any])


@overload
def get_pool(name: str) -> ResourcePool[Any]: ...
@overload
def get_pool(name: str, kind: type[A]) -> A: ...
def get_pool(name: str, kind: type[Any] = BasePool) -> Any:
    """Return the pool of this name.

    Args:
        name: as it was given to the pool, or that of a declared pool, which is built now.
        kind: `AsyncResourcePool` for type checkers to know that it is one.

    Raises:
        UnknownName: there is none; the message lists the names that there are.
        TypeError: it is of another kind.
    """
    pool = POOL_REGISTRY.get(name)
    if not isinstance(pool, kind):
        raise TypeError(f"pool {name!r} is of type {type(pool).__name__}, not {kind.__name__}")
    return pool
