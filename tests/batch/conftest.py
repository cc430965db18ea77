"""The fixtures of the tests of telemetry, for those of batches."""

from tests.telemetry.conftest import exporter, name, record_spans, script, service

__all__ = ("exporter", "name", "record_spans", "script", "service")
