"""Windows: many events folded into one, with a count and the sum, minimum and maximum of each number."""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ("Window",)

_DIFFERS = object()
_NUMBER = (int, float)


class Window:
    """What the events of one key have in common, and what their numbers add up to."""

    __slots__ = ("_common", "_numbers", "count")

    def __init__(self) -> None:
        self.count = 0
        self._common: dict[str, Any] = {}
        self._numbers: dict[str, list[float]] = {}

    def fold(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add events by their attributes."""
        numbers, common = self._numbers, self._common
        for attributes in events:
            self.count += 1
            for name, value in attributes.items():
                kind = type(value)
                if kind is float or kind is int or (kind is not bool and isinstance(value, _NUMBER)):
                    seen = numbers.get(name)
                    if seen is None:
                        numbers[name] = [value, value, value]
                        continue
                    seen[0] += value
                    if value < seen[1]:
                        seen[1] = value
                    elif value > seen[2]:
                        seen[2] = value
                elif common.setdefault(name, value) != value:
                    common[name] = _DIFFERS

    def attributes(self) -> dict[str, Any]:
        """Return ``count``, what all events agree on, and ``{name}.sum``, ``.min`` and ``.max`` of each number.

        >>> window = Window()
        >>> window.fold([{"cache": "users", "size": 3}, {"cache": "users", "size": 5}])
        >>> window.attributes()
        {'cache': 'users', 'size.sum': 8, 'size.min': 3, 'size.max': 5, 'count': 2}
        """
        result = {name: value for name, value in self._common.items() if value is not _DIFFERS}
        for name, (total, low, high) in self._numbers.items():
            result.update({f"{name}.sum": total, f"{name}.min": low, f"{name}.max": high})
        result["count"] = self.count
        return result
