"""Help for the tests of those who use this library: a clock, faults, tiers, and a record of what was told.

Where pytest is installed, the fixtures `perfopt`, `manual_clock` and `empty_caches` are there as well.
"""

import importlib
from typing import TYPE_CHECKING

from otel_perfopt.testing.capture import Captured, capture
from otel_perfopt.testing.clock import ManualClock
from otel_perfopt.testing.faults import Fault, Faults

if TYPE_CHECKING:
    from otel_perfopt.testing.dict_tier import DictTier
    from otel_perfopt.testing.faulty_tier import FaultyTier

__all__ = ("Captured", "DictTier", "Fault", "Faults", "FaultyTier", "ManualClock", "capture")

_LAZY = {"DictTier": "otel_perfopt.testing.dict_tier", "FaultyTier": "otel_perfopt.testing.faulty_tier"}


def __getattr__(name: str) -> object:
    """Import tiers for those who use them: every run of pytest imports this package."""
    if name in _LAZY:
        found = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
