"""What stands for an argument that was not given, where None has a meaning."""

from enum import Enum
from typing import Final

__all__ = ("UNSET", "Unset")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "..."


UNSET: Final = Unset.UNSET
