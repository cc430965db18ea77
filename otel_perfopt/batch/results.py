"""What the function of a processor returns, and what it may not return."""

import reprlib
from collections.abc import Mapping
from typing import Any

from otel_perfopt.errors import BatchError

__all__ = ("results_of",)


def results_of(name: str, returned: Any, expected: int) -> list[Any]:
    """Return as a list what the function of a processor has returned.

    Raises:
        BatchError: it is not one result for each item.
    """
    if not isinstance(returned, list | tuple) and not _is_sequence(returned):
        raise BatchError(
            f"the function of batch processor {name!r} returned {reprlib.repr(returned)}; it must return a list with a result "
            f"for each item, in the order of the items",
            context={"batch": name, "expected": expected},
        )
    results = list(returned)
    if len(results) != expected:
        raise BatchError(
            f"the function of batch processor {name!r} returned {len(results)} results for {expected} items; it must return "
            f"one for each, in the order of the items",
            context={"batch": name, "expected": expected, "got": len(results)},
        )
    return results


def _is_sequence(value: object) -> bool:
    """Whether a value holds results in an order; arrays do, which are no `Sequence`."""
    if isinstance(value, str | bytes | bytearray | Mapping):
        return False
    return all(hasattr(type(value), method) for method in ("__len__", "__getitem__", "__iter__"))
