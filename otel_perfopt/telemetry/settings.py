"""The settings of an export: the ordinary ``OTEL_*`` variables, checked, and what the arguments of `configure` say instead.

The SDK logs a wrong value and goes on without it, or fails at the first export; here it is an error that names the setting.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from otel_perfopt.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = (
    "SIGNALS",
    "Export",
    "Protocol",
    "check_environment",
    "entry_point",
    "exports",
    "get",
    "is_disabled",
    "refuse",
    "resource_attributes",
)

SIGNALS = ("traces", "metrics", "logs")
Protocol = Literal["grpc", "http/protobuf"]
_OTLP: dict[str, Protocol] = {"otlp_proto_grpc": "grpc", "otlp_proto_http": "http/protobuf"}
_DEFAULT_ENDPOINTS: dict[Protocol, str] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


@dataclass(frozen=True, slots=True)
class Export:
    """One way out for one signal.

    Attributes:
        signal: ``"traces"``, ``"metrics"`` or ``"logs"``.
        entry_point: the exporter.
        protocol: how OTLP is spoken; None for other exporters.
        endpoint: where to; for HTTP with the path of the signal. None for other exporters.
    """

    signal: str
    entry_point: "EntryPoint"
    protocol: Protocol | None = None
    endpoint: str | None = None


def get(name: str) -> str | None:
    """Return the value of a variable; None for an empty one, as OpenTelemetry has it."""
    return os.environ.get(name, "").strip() or None


def is_disabled() -> bool:
    """Whether ``OTEL_SDK_DISABLED`` turns OpenTelemetry off."""
    return (get("OTEL_SDK_DISABLED") or "").lower() == "true"


def resource_attributes() -> dict[str, str]:
    """Return what ``OTEL_RESOURCE_ATTRIBUTES`` says, without loading the SDK, which says it as well."""
    pairs = [pair.partition("=") for pair in (get("OTEL_RESOURCE_ATTRIBUTES") or "").split(",")]
    return {name.strip(): unquote(value.strip()) for name, found, value in pairs if found}


def refuse(setting: str, value: object, rule: str) -> ConfigurationError:
    """Return the error for a setting with a value that cannot work."""
    return ConfigurationError(f"{setting}={value!r}: {rule}", context={"setting": setting, "value": value})


def entry_point(group: str, name: str, *, setting: str) -> "EntryPoint":
    """Return what is installed under a name in a group of entry points."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - a fifth of the time that importing the library takes

    installed = {found.name: found for found in entry_points(group=group)}
    if name not in installed:
        raise refuse(setting, name, f"not installed; there are {', '.join(sorted(installed))}")
    return installed[name]


def exports(exporter: str | None = None) -> list[Export]:
    """Return all ways out, by the variables and by the argument `exporter` of `configure`."""
    url = None
    if exporter is not None:
        if not isinstance(exporter, str):
            raise refuse("exporter", exporter, 'use "otlp", "console", "none", the URL of an endpoint, or None')
        if "://" in exporter:
            url, exporter = _checked_url("exporter", exporter), None
        elif exporter not in {"otlp", "console", "none"}:
            raise refuse("exporter", exporter, 'use "otlp", "console", "none", or a URL such as "http://localhost:4318"')
    return [export for signal in SIGNALS for export in _exports_of(signal, exporter, url)]


def _exports_of(signal: str, exporter: str | None, url: str | None) -> Iterator[Export]:
    setting = f"OTEL_{signal.upper()}_EXPORTER"
    wanted = exporter or get(setting) or "otlp"
    names = [name.strip() for name in wanted.split(",")]
    if "none" in names and len(names) > 1:
        raise refuse(setting, wanted, '"none" excludes the others')
    for name in names:
        if name != "none":
            yield _export(signal, name, url, setting="exporter" if exporter else setting)


def _export(signal: str, name: str, url: str | None, *, setting: str) -> Export:
    group = f"opentelemetry_{signal}_exporter"
    if name != "otlp" and name not in _OTLP:
        return Export(signal, entry_point(group, name, setting=setting))
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    base = url or get("OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = None if url else get(own)
    protocol = _OTLP.get(name) or _protocol(signal, endpoint or base)
    if endpoint is None:
        endpoint = base or _DEFAULT_ENDPOINTS[protocol]
        if protocol == "http/protobuf":
            endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
    if protocol == "http/protobuf" and "://" not in endpoint:
        raise refuse(own if get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "begin with http:// or https://")
    _check_compression(signal, protocol)
    implementation = next(name for name, spoken in _OTLP.items() if spoken == protocol)
    return Export(signal, entry_point(group, implementation, setting=setting), protocol, endpoint)


def _protocol(signal: str, endpoint: str | None) -> Protocol:
    """Return the protocol that is asked for, or else the one that the endpoint is known for."""
    wanted = get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if wanted is None and endpoint is not None and "://" in endpoint:
        parts = urlsplit(endpoint)
        wanted = "http/protobuf" if parts.port == 4318 or parts.path.endswith(f"/v1/{signal}") else None
    return "http/protobuf" if (wanted or "").lower() == "http/protobuf" else "grpc"


def _check_compression(signal: str, protocol: Protocol) -> None:
    for setting in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
        value = get(setting)
        if value is not None and protocol == "grpc" and value.lower() == "deflate":
            raise refuse(setting, value, "gRPC has gzip and none")


def check_environment() -> None:
    """Raise a `ConfigurationError` for the first variable whose value cannot work."""
    for name, complaint in _rules():
        value = get(name)
        if value is not None and (rule := complaint(value)) is not None:
            raise refuse(name, value, rule)


Rule = Callable[[str], str | None]


def _rules() -> Iterator[tuple[str, Rule]]:
    for name in ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"):
        yield name, _positive
    for batch in ("BSP", "BLRP"):
        for option in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"):
            yield f"OTEL_{batch}_{option}", _whole
        yield f"OTEL_{batch}_MAX_EXPORT_BATCH_SIZE", _at_most(f"OTEL_{batch}_MAX_QUEUE_SIZE", 2048)
    for signal in ("", "TRACES_", "METRICS_", "LOGS_"):
        prefix = f"OTEL_EXPORTER_OTLP_{signal}"
        yield f"{prefix}PROTOCOL", _one_of("grpc", "http/protobuf")
        yield f"{prefix}COMPRESSION", _one_of("gzip", "deflate", "none")
        yield f"{prefix}TIMEOUT", _positive
        yield f"{prefix}ENDPOINT", _endpoint
        for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
            yield f"{prefix}{file}", _file
    yield "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", _one_of("cumulative", "delta", "lowmemory")
    aggregations = _one_of("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
    yield "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", aggregations
    yield "OTEL_METRICS_EXEMPLAR_FILTER", _one_of("trace_based", "always_on", "always_off")
    for limited in ("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_COUNT", "LINK_COUNT"):
        yield f"OTEL_SPAN_{limited}_LIMIT", _limit
    for limited in ("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT"):
        yield f"OTEL_{limited}_LIMIT", _limit
    yield "OTEL_RESOURCE_ATTRIBUTES", _pairs
    yield "OTEL_EXPORTER_PROMETHEUS_PORT", _port
    if (get("OTEL_TRACES_SAMPLER") or "").lower().endswith("traceidratio"):
        yield "OTEL_TRACES_SAMPLER_ARG", _ratio


def _one_of(*values: str) -> Rule:
    return lambda value: None if value.lower() in values else f"use {' or '.join(values)}"


def _positive(value: str) -> str | None:
    try:
        return None if 0 < float(value) < float("inf") else "use a positive number"
    except ValueError:
        return "use a positive number"


def _whole(value: str) -> str | None:
    return None if value.isdecimal() and int(value) else "use a positive whole number"


def _port(value: str) -> str | None:
    return None if value.isdecimal() and int(value) < 65536 else "use the number of a port, at most 65535"


def _limit(value: str) -> str | None:
    return None if value.isdecimal() else "use a whole number"


def _at_most(other: str, default: int) -> Rule:
    return lambda value: None if int(value) <= int(get(other) or default) else f"use at most {other}, {get(other) or default}"


def _ratio(value: str) -> str | None:
    try:
        return None if 0 <= float(value) <= 1 else "use a number from 0 to 1"
    except ValueError:
        return "use a number from 0 to 1"


def _file(value: str) -> str | None:
    return None if os.path.isfile(value) else "there is no such file"


def _pairs(value: str) -> str | None:
    return None if all("=" in pair for pair in value.split(",") if pair.strip()) else "use key=value,key=value"


def _endpoint(value: str) -> str | None:
    if "://" not in value:
        return None  # gRPC also takes host:port
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        return str(error)
    return None if parts.scheme in {"http", "https"} and parts.hostname else 'use a URL such as "http://localhost:4318"'


def _checked_url(setting: str, value: str) -> str:
    rule = _endpoint(value)
    if rule is not None:
        raise refuse(setting, value, rule)
    return value
