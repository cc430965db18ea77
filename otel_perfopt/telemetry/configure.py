"""`configure` and `shutdown`: OpenTelemetry for an application that has not set it up itself.

Only what is missing is made. The library's instruments, spans and events go to whatever provider is global, also without
any of this.
"""

import threading
import weakref
from collections.abc import Mapping
from typing import Any, Literal

from opentelemetry import _logs, metrics, trace

from otel_perfopt.durations import Duration, to_seconds
from otel_perfopt.telemetry import derived, lifecycle, settings
from otel_perfopt.telemetry import spans as span_making
from otel_perfopt.telemetry.settings import refuse
from otel_perfopt.telemetry.structured_logs.options import LogOptions, PresetName

__all__ = ("configure", "shutdown")

_lock = threading.RLock()
_with_bus: "weakref.WeakSet[Any]" = weakref.WeakSet()


def configure(
    *,
    service_name: str | None = None,
    exporter: str | None = None,
    spans: Literal["auto", "off"] = "auto",
    logs: PresetName | LogOptions | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    logger_provider: _logs.LoggerProvider | None = None,
) -> None:
    """Export traces, metrics and events over OTLP, as the ordinary ``OTEL_*`` variables say, and write structured logs.

    A global provider that is set already is used as it is and never replaced; calling this twice is harmless. With
    ``OTEL_SDK_DISABLED=true`` it only writes logs. What was collected before is exported, too.

    Args:
        service_name: the name of the service; None for ``OTEL_SERVICE_NAME``.
        exporter: ``"otlp"``, ``"console"`` or ``"none"``, in place of ``OTEL_TRACES_EXPORTER`` and its like; or the URL of an
            endpoint, in place of ``OTEL_EXPORTER_OTLP_ENDPOINT``; None for what the variables say, by default OTLP.
        spans: ``"auto"`` for a span around everything but hits, ``"off"`` for none.
        logs: ``"json"``, ``"ecs"``, ``"datadog"``, ``"gcp"`` or ``"console"``, or `LogOptions`: writes the records of structlog
            and `logging` as lines, and hands them to OpenTelemetry; None leaves both as they are.
        meter_provider: becomes the global one, with whatever readers it has.
        tracer_provider: becomes the global one, with whatever processors it has.
        logger_provider: becomes the global one, and gets an `EventBus`.

    Raises:
        ConfigurationError: an argument or a variable has a value that cannot work; the message names it. Nothing is set up then.

    >>> configure(service_name="shop", exporter="none")
    """
    if service_name is not None and (not isinstance(service_name, str) or not service_name.strip()):
        raise refuse("service_name", service_name, "use a name, or None for OTEL_SERVICE_NAME")
    if spans not in {"auto", "off"}:
        raise refuse("spans", spans, 'use "auto" or "off"')
    options = None if logs is None else LogOptions.of(logs)
    given = {"traces": tracer_provider, "metrics": meter_provider, "logs": logger_provider}
    with _lock:
        current = _current_providers()
        for signal, provider in given.items():
            _check_given(signal, provider, current[signal])
        if settings.is_disabled():
            span_making.switch(on=spans != "off")
            _set_up_logs(options, service_name)
            return
        missing = [signal for signal, provider in given.items() if provider is None and _is_stand_in(current[signal])]
        made = _make(missing, service_name, exporter)
        span_making.switch(on=spans != "off")
        _set({signal: provider for signal, provider in {**given, **made}.items() if provider is not current[signal]})
        _add_bus(logger_provider)
        _set_up_logs(options, service_name)
        derived.start_deriving()
        lifecycle.hand_over_regularly()


def shutdown(timeout: Duration = lifecycle.LIMIT) -> bool:
    """Deliver everything now, and shut down the providers that `configure` made; others deliver what they hold.

    This happens by itself at exit. Afterwards nothing more is exported by those providers; the report goes on.

    Args:
        timeout: seconds for everything together.

    Returns:
        Whether everything has arrived in time, as far as the providers that `configure` made know.

    >>> shutdown()
    True
    """
    return lifecycle.finish(to_seconds(timeout, option="timeout"))


def _current_providers() -> dict[str, Any]:
    return {
        "traces": trace.get_tracer_provider(),
        "metrics": metrics.get_meter_provider(),
        "logs": _logs.get_logger_provider(),
    }


def _is_stand_in(provider: object) -> bool:
    """Whether `provider` is the API's own, which passes on to the one that will be set."""
    cls = type(provider)
    return "Proxy" in cls.__name__ and cls.__module__.startswith("opentelemetry.") and ".sdk." not in cls.__module__


def _check_given(signal: str, given: object, current: object) -> None:
    option, method = {
        "traces": ("tracer_provider", "get_tracer"),
        "metrics": ("meter_provider", "get_meter"),
        "logs": ("logger_provider", "get_logger"),
    }[signal]
    if given is None:
        return
    if not callable(getattr(given, method, None)):
        raise refuse(option, given, f"a provider has a method {method}()")
    if given is not current and not _is_stand_in(current):
        raise refuse(option, given, f"another global provider is set, and cannot be replaced: {current!r}")


def _make(signals: list[str], service_name: str | None, exporter: str | None) -> dict[str, Any]:
    """Make the providers that are missing; all or none."""
    settings.check_environment()
    exports = settings.exports(exporter)
    if not signals:
        return {}
    from otel_perfopt.telemetry import providers  # noqa: PLC0415 - loads the SDK

    return providers.make(signals, [export for export in exports if export.signal in signals], service_name)


def _set(providers: Mapping[str, Any]) -> None:
    setters: dict[str, Any] = {
        "traces": trace.set_tracer_provider,
        "metrics": metrics.set_meter_provider,
        "logs": _logs.set_logger_provider,
    }
    for signal, provider in providers.items():
        if provider is not None:
            setters[signal](provider)


def _set_up_logs(options: LogOptions | None, service_name: str | None) -> None:
    if options is not None:
        from otel_perfopt.telemetry.structured_logs.setup import set_up  # noqa: PLC0415 - loads structlog

        set_up(options, service_name)


def _add_bus(provider: Any) -> None:
    if hasattr(provider, "add_log_record_processor") and provider not in _with_bus:
        from otel_perfopt.telemetry.bus import EventBus  # noqa: PLC0415 - loads the SDK

        provider.add_log_record_processor(EventBus())
        _with_bus.add(provider)
