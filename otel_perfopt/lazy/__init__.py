"""Lazy loading: a value that is made when somebody wants it, once for all threads, tasks and event loops."""

from otel_perfopt.lazy.decorator import LazyFunction, LazyMethod, lazy
from otel_perfopt.lazy.loader import LazyLoader, create_lazy_loader

__all__ = ("LazyFunction", "LazyLoader", "LazyMethod", "create_lazy_loader", "lazy")
