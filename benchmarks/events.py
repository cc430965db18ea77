"""What telling an event costs, beside a log record of the SDK."""

import time

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord

from benchmarks.harness import Benchmark, Contestant, Slice, Turn, timed

__all__ = ("BENCHMARKS",)

EVENTS = 2_000
ATTRIBUTES: dict[str, str | float] = {"cache": "users", "duration": 0.25}


class Nowhere(LogRecordProcessor):
    """Does nothing with a record."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take a record."""

    def shutdown(self) -> None:
        """End."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Deliver nothing."""
        return True


def aggregated(turn: Turn) -> Slice:
    """Return the slice of aggregated events; folding them is included whenever the buffer is full."""
    from otel_perfopt import emit_aggregated

    count = turn.count(EVENTS)

    def lap() -> None:
        for _ in range(count):
            emit_aggregated("cache.hit", ATTRIBUTES)

    return timed(lap, laps=1, operations=count)


def bare(turn: Turn) -> Slice:
    """Return the slice of events that the SDK takes one by one, for a processor that does nothing with them."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(Nowhere())
    logger = provider.get_logger("benchmarks")
    count = turn.count(EVENTS)

    def lap() -> None:
        for _ in range(count):
            logger.emit(event_name="cache.hit", timestamp=time.time_ns(), attributes=ATTRIBUTES)

    return timed(lap, laps=1, operations=count)


BENCHMARKS = (
    Benchmark(
        "emit-aggregated",
        "emit_aggregated(), 2 attributes",
        (Contestant("emit_aggregated", aggregated), Contestant("SDK Logger.emit", bare)),
        limit=0.2,
    ),
)
