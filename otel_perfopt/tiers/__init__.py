"""Tiers behind the memory of a cache, and the codec that makes bytes of values."""

from typing import TYPE_CHECKING

from otel_perfopt.errors import Undecodable, Unencodable
from otel_perfopt.tiers.base import Change, Found, Mark, Record, Tier, TierUsage
from otel_perfopt.tiers.codec import Codec
from otel_perfopt.tiers.keys import encode_key

if TYPE_CHECKING:
    from otel_perfopt.tiers.sqlite import SQLiteTier

__all__ = (
    "Change",
    "Codec",
    "Found",
    "Mark",
    "Record",
    "SQLiteTier",
    "Tier",
    "TierUsage",
    "Undecodable",
    "Unencodable",
    "encode_key",
)


def __getattr__(name: str) -> object:
    """Import SQLite only for those who use it."""
    if name == "SQLiteTier":
        from otel_perfopt.tiers.sqlite import SQLiteTier  # noqa: PLC0415

        return SQLiteTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
