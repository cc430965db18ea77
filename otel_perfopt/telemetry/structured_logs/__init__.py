"""Structured logs: one line for each record of structlog, of `logging` and of other libraries, in the fields of an aggregator.

A record is collected, made plain (masked, shortened, without what JSON has not), and written; the parts that do this are pure.
Only `set_up` touches the process. Importing this package loads no structlog.
"""

from otel_perfopt.telemetry.structured_logs.options import LogOptions

__all__ = ("LogOptions",)
