"""How much memory the entries of a cache take: estimated from a sample, never by a full walk."""

import sys
from collections.abc import Collection, Sequence
from types import FunctionType, ModuleType
from typing import cast

from otel_perfopt._core.policies import Entry

__all__ = ("SAMPLE", "estimate")

SAMPLE = 16
MAX_OBJECTS = 200
_SHARED = (type, ModuleType, FunctionType)  # exist once, whoever refers to them
_OVERHEAD = sys.getsizeof(Entry(None, None, 0.0)) + 100  # an entry, and its places in a dict and a queue


def estimate(sample: Sequence[Entry], count: int) -> int:
    """Return the estimated bytes of `count` entries of which `sample` is a part."""
    if not sample:
        return 0
    seen: set[int] = set()
    total = sum(_OVERHEAD + _deep_size(entry.key, seen) + _deep_size(entry.value, seen) for entry in sample)
    return round(total * count / len(sample))


def _deep_size(root: object, seen: set[int]) -> int:
    """Add up `root` and what it contains, at most 200 objects of it; objects met before count nothing."""
    total = visited = 0
    pending = [root]
    while pending and visited < MAX_OBJECTS:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        visited += 1
        try:
            total += sys.getsizeof(item)
        except Exception:  # noqa: BLE001, S112 - __sizeof__ is user code, and this only estimates
            continue
        # Exact types only: iterating a subclass could run user code.
        if type(item) is dict:
            pending.extend(list(item)[:MAX_OBJECTS])
            pending.extend(list(item.values())[:MAX_OBJECTS])
        elif type(item) in (list, tuple, set, frozenset):
            pending.extend(list(cast("Collection[object]", item))[:MAX_OBJECTS])
        elif not issubclass(type(item), _SHARED):  # isinstance() would ask the item
            try:
                pending.append(object.__getattribute__(item, "__dict__"))
            except AttributeError:
                pass  # no attributes of its own
    return total
