"""Batches: items of many callers, one call."""

from otel_perfopt.batch.batched import batched
from otel_perfopt.batch.lookup import get_batch_processor
from otel_perfopt.batch.processors import AsyncBatchProcessor, BatchProcessor
from otel_perfopt.batch.stats import BatchStats
from otel_perfopt.batch.typing import AsyncBatchedFunction, AsyncBatchedMethod, BatchedFunction, BatchedMethod

__all__ = (
    "AsyncBatchProcessor",
    "AsyncBatchedFunction",
    "AsyncBatchedMethod",
    "BatchProcessor",
    "BatchStats",
    "BatchedFunction",
    "BatchedMethod",
    "batched",
    "get_batch_processor",
)
