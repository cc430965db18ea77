"""The report: what the in-memory metric reader says, as rows."""

from otel_perfopt.report.build import build_report, get_performance_report
from otel_perfopt.report.model import CacheRow, LatencySummary, OperationRow, PerformanceReport, Summary

__all__ = (
    "CacheRow",
    "LatencySummary",
    "OperationRow",
    "PerformanceReport",
    "Summary",
    "build_report",
    "get_performance_report",
)
