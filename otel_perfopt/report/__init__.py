"""The report: what the in-memory metric reader says, as rows."""

from otel_perfopt.report.build import build_report, get_performance_report
from otel_perfopt.report.model import (
    BatchRow,
    CacheRow,
    HotKeyRow,
    LatencySummary,
    LazyRow,
    OperationRow,
    PerformanceReport,
    PoolRow,
    Summary,
)

__all__ = (
    "BatchRow",
    "CacheRow",
    "HotKeyRow",
    "LatencySummary",
    "LazyRow",
    "OperationRow",
    "PerformanceReport",
    "PoolRow",
    "Summary",
    "build_report",
    "get_performance_report",
)
