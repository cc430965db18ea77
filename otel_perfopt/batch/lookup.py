"""Batch processors by their names."""

from typing import Any, TypeVar, overload

from otel_perfopt.batch.base import BaseProcessor
from otel_perfopt.batch.processors import BatchProcessor
from otel_perfopt.registry import BATCH_REGISTRY

__all__ = ("get_batch_processor",)

P = TypeVar("P", bound=BaseProcessor[Any, Any])


@overload
def get_batch_processor(name: str) -> BatchProcessor[Any, Any]: ...
@overload
def get_batch_processor(name: str, kind: type[P]) -> P: ...
def get_batch_processor(name: str, kind: type[Any] = BaseProcessor) -> Any:
    """Return the batch processor of this name.

    Args:
        name: as it was given to the processor, or that of a declared one, which is built now.
        kind: `AsyncBatchProcessor` for type checkers to know that it is one.

    Raises:
        UnknownName: there is none; the message lists the names that there are.
        TypeError: it is of another kind.

    >>> processor = BatchProcessor("orders", lambda orders: orders)
    >>> get_batch_processor("orders") is processor
    True
    """
    processor = BATCH_REGISTRY.get(name)
    if not isinstance(processor, kind):
        raise TypeError(f"batch processor {name!r} is of type {type(processor).__name__}, not {kind.__name__}")
    return processor
