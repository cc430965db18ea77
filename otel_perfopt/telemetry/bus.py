"""The event bus as a log record processor: subscribers hear the events of every library in the process.

It lives apart from the events because it needs the SDK, which importing the library does not.
"""

from typing import TYPE_CHECKING

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_perfopt.telemetry import names
from otel_perfopt.telemetry.aggregate import flush_aggregated
from otel_perfopt.telemetry.derived import flush_derived, start_deriving
from otel_perfopt.telemetry.events import Event, dispatch, is_wanted

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord

__all__ = ("EventBus",)


class EventBus(LogRecordProcessor):
    """Delivers the events of other libraries to this library's subscribers; add it to a logger provider.

    An event is a log record with an event name; other records are passed over. The library's own events have reached the
    subscribers when they were emitted, so the bus skips them, and nothing arrives twice.

    >>> from opentelemetry.sdk._logs import LoggerProvider
    >>> provider = LoggerProvider(shutdown_on_exit=False)
    >>> provider.add_log_record_processor(EventBus())
    >>> from otel_perfopt import subscribe
    >>> with subscribe("job.*", lambda event: print(event.name, event.scope)):
    ...     provider.get_logger("jobs").emit(event_name="job.done")
    job.done jobs
    """

    def __init__(self) -> None:
        start_deriving()

    def on_emit(self, log_record: "ReadWriteLogRecord") -> None:
        """Deliver an event of another library."""
        record, scope = log_record.log_record, log_record.instrumentation_scope
        origin = scope.name if scope is not None else ""
        if record.event_name and origin != names.SCOPE:
            dispatch(Event(record.event_name, dict(record.attributes or {}), record.timestamp or 0, origin))

    def enabled(
        self,
        *,
        context: Context | None = None,  # noqa: ARG002 - given by the SDK
        instrumentation_scope: InstrumentationScope | None = None,
        severity_number: SeverityNumber | None = None,  # noqa: ARG002
        event_name: str | None = None,
    ) -> bool:
        """Whether a subscriber would hear such an event."""
        if instrumentation_scope is not None and instrumentation_scope.name == names.SCOPE:
            return False
        return event_name is not None and is_wanted(event_name)

    def shutdown(self) -> None:
        """Emit what has come in the intervals that run."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - nothing here waits
        """Emit what has come in the intervals that run."""
        flush_derived()
        flush_aggregated()
        return True
