"""The fixtures for pytest, which finds this module by itself where the library is installed."""

from collections.abc import Iterator

import pytest

from otel_perfopt.registry import CACHE_REGISTRY
from otel_perfopt.testing.capture import Captured, capture
from otel_perfopt.testing.clock import ManualClock

__all__ = ("empty_caches", "manual_clock", "perfopt")


@pytest.fixture
def perfopt() -> Iterator[Captured]:
    """What otel_perfopt tells during this test: metrics, spans and events."""
    with capture() as captured:
        yield captured


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock for the option clock= that stands still until it is told to go on."""
    return ManualClock()


@pytest.fixture
def empty_caches() -> Iterator[None]:
    """Forget what all caches of otel_perfopt hold, before this test and after it."""
    _clear_caches()
    yield
    _clear_caches()


def _clear_caches() -> None:
    for cache in CACHE_REGISTRY.live():
        cache.clear()
