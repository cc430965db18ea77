"""Single flight for threads and event loops together: callers who want the same thing at the same time share one load."""

from otel_perfopt.single_flight.load import Load, Request, is_coroutine_function
from otel_perfopt.single_flight.sharing import SingleFlight, call, call_async

__all__ = ("Load", "Request", "SingleFlight", "call", "call_async", "is_coroutine_function")
