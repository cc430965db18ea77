"""What differs between one shop and another, from the environment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CACHE_ENTRIES = int(os.environ.get("SHOP_CACHE_ENTRIES", "1000"))
"""The most entries of each cache; 0 to see what the shop is like without them."""


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        database: the SQLite file; made at the first use.
        prices: the URL of the service that knows the prices.
    """

    database: Path
    prices: str

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings of this process."""
        return cls(Path(os.environ.get("SHOP_DATABASE", "shop.db")), os.environ.get("SHOP_PRICES", "http://127.0.0.1:8001"))
