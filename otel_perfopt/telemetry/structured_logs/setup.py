"""Setting up the process: one handler for all records, and structlog on the way to it."""

import logging
import sys
from collections.abc import MutableMapping
from types import FrameType
from typing import Any, TextIO

from otel_perfopt.telemetry import lifecycle, settings
from otel_perfopt.telemetry.structured_logs.collecting import EVENT
from otel_perfopt.telemetry.structured_logs.handler import LineHandler
from otel_perfopt.telemetry.structured_logs.options import LogOptions
from otel_perfopt.telemetry.structured_logs.record import Place, Service

__all__ = ("set_up",)

_OWN = ("structlog.", "logging.", "otel_perfopt.telemetry.logs.", "otel_perfopt.telemetry.structured_logs.")
_handler: LineHandler | None = None


def set_up(options: LogOptions, service_name: str | None) -> None:
    """Write all records as the options say; a second time replaces what the first has set up.

    Handlers that write to the same stream are taken off, whichever logger they are at; other handlers stay.

    Args:
        options: how.
        service_name: the name of the service; None for what the variables say.
    """
    global _handler
    import structlog  # noqa: PLC0415 - a fifth of a second that most processes never need

    if _handler is None:
        lifecycle.before_exit(_tell_the_rest)
    old, _handler = _handler, LineHandler(options, _service(service_name), bound=structlog.contextvars.get_contextvars)
    if old is not None:
        logging.root.removeHandler(old)
    _take_off(sys.stderr if options.stream is None else options.stream)
    logging.root.addHandler(_handler)
    logging.root.setLevel(options.level)
    if old is not None:
        old.tell_suppressed(everything=True)  # only now: meanwhile others log, and need a handler
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=_logger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _service(name: str | None) -> Service:
    resource = settings.resource_attributes()
    return Service(
        name or settings.get("OTEL_SERVICE_NAME") or resource.get("service.name"),
        resource.get("service.version"),
        resource.get("deployment.environment.name") or resource.get("deployment.environment"),
        settings.get("GOOGLE_CLOUD_PROJECT"),
    )


def _take_off(stream: TextIO) -> None:
    known = list(logging.root.manager.loggerDict.values())  # a copy: other threads may get loggers meanwhile
    for logger in (logging.root, *(each for each in known if isinstance(each, logging.Logger))):
        for handler in logger.handlers[:]:
            its_stream = _stream_of(handler)
            if its_stream is not None and _file(its_stream) == _file(stream):
                logger.removeHandler(handler)
                logger.propagate = True  # what was shown there is shown by the handler of the root logger


def _stream_of(handler: logging.Handler) -> Any:
    # The second is where Rich keeps it.
    return getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)


def _file(stream: Any) -> Any:
    """Return what is the same for two streams to the same file, or for a stream without one the stream."""
    try:
        return stream.fileno()
    except Exception:  # noqa: BLE001 - whatever a stream raises that has no file
        return stream


def _logger(*names: str) -> logging.Logger:
    """Return the logger that structlog writes to: of the name that it was asked for, or else of the module that asks."""
    return logging.getLogger(names[0] if names else _caller().f_globals.get("__name__"))


def _hand_over(_: logging.Logger, __: str, event_dict: MutableMapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the last of structlog's processors: a call of `logging`, with the event as it is."""
    event = dict(event_dict)
    arguments = (event.pop("event", ""),)
    if isinstance(event.get("positional_args"), tuple):  # else it is a key of the application's own
        arguments += event.pop("positional_args")
    options: dict[str, Any] = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    caller = _caller()
    place = Place(caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_name)
    return arguments, {**options, "extra": {EVENT: (event, place)}}


def _caller() -> FrameType:
    """Return the frame of who logs; where a coroutine of structlog does it in a thread, of who awaits that."""
    awaiting = getattr(sys.modules.get("structlog.contextvars"), "_ASYNC_CALLING_STACK", None)  # private; nothing else knows
    frame: FrameType = (awaiting and awaiting.get(None)) or sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(_OWN):
        frame = frame.f_back
    return frame


def _tell_the_rest(_: float) -> None:
    if _handler is not None:
        _handler.tell_suppressed(everything=True)
