"""Single flight for threads and event loops together: callers who want the same thing at the same time share one load."""

from otel_perfopt.single_flight.calling import Unawaited, call_async, finished
from otel_perfopt.single_flight.load import Load, Request, is_coroutine_function
from otel_perfopt.single_flight.sharing import SingleFlight
from otel_perfopt.single_flight.waiting import Deadline

__all__ = ("Deadline", "Load", "Request", "SingleFlight", "Unawaited", "call_async", "finished", "is_coroutine_function")
