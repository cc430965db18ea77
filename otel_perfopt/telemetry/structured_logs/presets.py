"""The one table of presets: which fact of a record goes into which field.

A preset is a dict of fields, each with the function that makes its value; None leaves the field out. What the application logs
beside the message stands next to them or, for ECS, in `labels`, where Elastic keeps custom fields.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from otel_perfopt.telemetry.structured_logs.plain import free_key
from otel_perfopt.telemetry.structured_logs.record import Record, Service, severity_number

__all__ = ("LINES", "Preset", "to_json")

Fact = Callable[[Record, Service], Any]
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}  # JSON lets them stand; some break lines
_ENCODERS = {ascii_only: json.JSONEncoder(ensure_ascii=ascii_only, allow_nan=False) for ascii_only in (False, True)}
_GCP_SEVERITIES = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (25, "NOTICE"), (20, "INFO"))


@dataclass(frozen=True, slots=True)
class Preset:
    """How an aggregator wants a record.

    Attributes:
        fields: the fields and their values.
        reserved: further fields that mean something to the aggregator, and are not the application's.
        labels: the field that holds what the application logs, flat; None for beside the others.
    """

    fields: Mapping[str, Fact]
    reserved: frozenset[str] = frozenset()
    labels: str | None = None
    _taken: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        # The first part of a name with dots is an object for many stores, and cannot be a text as well.
        roots = {name.split(".")[0] for name in self.fields if "/" not in name}
        object.__setattr__(self, "_taken", self.reserved | self.fields.keys() | roots)

    def render(self, record: Record, service: Service) -> dict[str, Any]:
        """Return the fields of a record; a key of the application that is taken gets an underscore at its end."""
        line = {name: value for name, fact in self.fields.items() if (value := fact(record, service)) is not None}
        if self.labels is not None:
            if record.attributes:
                line[self.labels] = _labels(record.attributes)
            return line
        for key, value in record.attributes.items():
            line[free_key(f"{key}_" if key in self._taken else key, line)] = value
        return line


def to_json(line: Mapping[str, Any], *, ascii_only: bool) -> str:
    r"""Return one line, whatever is in the values.

    >>> print(to_json({"body": "two\nlines\u2028and Ω"}, ascii_only=False))
    {"body": "two\nlines\u2028and Ω"}
    """
    text = _ENCODERS[ascii_only].encode(line)
    return text if text.isprintable() else text.translate(_CONTROLS)


def _labels(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as flat labels: dots would make objects of them, and objects are not allowed."""
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        name = free_key(key.replace(".", "_"), found)
        found[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
    return found


def _time(record: Record, _: Service) -> str:
    return datetime.fromtimestamp(record.time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _level(record: Record, _: Service) -> str:
    return record.level_name


def _level_in_lower_case(record: Record, _: Service) -> str:
    return record.level_name.lower()


def _severity_number(record: Record, _: Service) -> int:
    return severity_number(record.level)


def _gcp_severity(record: Record, _: Service) -> str:
    return next((name for level, name in _GCP_SEVERITIES if record.level >= level), "DEBUG")


def _message(record: Record, _: Service) -> str:
    return record.message


def _logger(record: Record, _: Service) -> str:
    return record.logger


def _trace_id(record: Record, _: Service) -> str | None:
    return f"{record.trace_id:032x}" if record.trace_id else None


def _span_id(record: Record, _: Service) -> str | None:
    return f"{record.span_id:016x}" if record.trace_id else None


def _trace_flags(record: Record, _: Service) -> str | None:
    return f"{record.trace_flags:02x}" if record.trace_id else None


def _is_sampled(record: Record, _: Service) -> bool | None:
    return bool(record.trace_flags & 1) if record.trace_id else None


def _lower_half_of_trace_id(record: Record, _: Service) -> str | None:
    return str(record.trace_id & (2**64 - 1)) if record.trace_id else None


def _span_id_in_decimal(record: Record, _: Service) -> str | None:
    return str(record.span_id) if record.trace_id else None


def _gcp_trace(record: Record, service: Service) -> str | None:
    trace_id = _trace_id(record, service)
    return trace_id if trace_id is None or service.project is None else f"projects/{service.project}/traces/{trace_id}"


def _gcp_place(record: Record, _: Service) -> dict[str, str] | None:
    place = record.place
    return place and {"file": place.file, "line": str(place.line), "function": place.function}


def _gcp_service(_: Record, service: Service) -> dict[str, str] | None:
    if service.name is None:
        return None
    return {"service": service.name, **({} if service.version is None else {"version": service.version})}


def _of_service(part: Literal["name", "version", "environment"]) -> Fact:
    return lambda _, service: getattr(service, part)


def _of_failure(part: Literal["type", "message", "stack"]) -> Fact:
    return lambda record, _: record.failure and getattr(record.failure, part)


def _of_place(part: Literal["file", "line", "function"]) -> Fact:
    return lambda record, _: record.place and getattr(record.place, part)


LINES: Mapping[str, Preset] = {
    "json": Preset({
        "timestamp": _time,
        "severity_text": _level,
        "severity_number": _severity_number,
        "body": _message,
        "trace_id": _trace_id,
        "span_id": _span_id,
        "trace_flags": _trace_flags,
        "otel.scope.name": _logger,
        "service.name": _of_service("name"),
        "service.version": _of_service("version"),
        "deployment.environment.name": _of_service("environment"),
        "code.file.path": _of_place("file"),
        "code.line.number": _of_place("line"),
        "code.function.name": _of_place("function"),
        "exception.type": _of_failure("type"),
        "exception.message": _of_failure("message"),
        "exception.stacktrace": _of_failure("stack"),
    }),
    "ecs": Preset(
        {
            "@timestamp": _time,
            "log.level": _level_in_lower_case,
            "message": _message,
            "ecs.version": lambda _, __: "8.11.0",
            "trace.id": _trace_id,
            "span.id": _span_id,
            "log.logger": _logger,
            "service.name": _of_service("name"),
            "service.version": _of_service("version"),
            "service.environment": _of_service("environment"),
            "log.origin.file.name": _of_place("file"),
            "log.origin.file.line": _of_place("line"),
            "log.origin.function": _of_place("function"),
            "error.type": _of_failure("type"),
            "error.message": _of_failure("message"),
            "error.stack_trace": _of_failure("stack"),
        },
        labels="labels",
    ),
    "datadog": Preset(
        {
            "timestamp": _time,
            "status": _level_in_lower_case,
            "message": _message,
            "logger.name": _logger,
            "trace_id": _trace_id,
            "span_id": _span_id,
            "dd.trace_id": _lower_half_of_trace_id,
            "dd.span_id": _span_id_in_decimal,
            "dd.service": _of_service("name"),
            "dd.env": _of_service("environment"),
            "dd.version": _of_service("version"),
            "error.kind": _of_failure("type"),
            "error.message": _of_failure("message"),
            "error.stack": _of_failure("stack"),
        },
        reserved=frozenset({"date", "ddsource", "ddtags", "device", "env", "host", "hostname", "level", "service", "severity",
                            "source", "syslog", "version"}),
    ),
    "gcp": Preset(
        {
            "severity": _gcp_severity,
            "message": _message,
            "time": _time,
            "logging.googleapis.com/trace": _gcp_trace,
            "logging.googleapis.com/spanId": _span_id,
            "logging.googleapis.com/trace_sampled": _is_sampled,
            "logging.googleapis.com/sourceLocation": _gcp_place,
            "logger": _logger,
            "serviceContext": _gcp_service,
            "environment": _of_service("environment"),
            "exception": _of_failure("type"),
            "stack_trace": _of_failure("stack"),
        },
        reserved=frozenset({"httpRequest", "labels", "timestamp", "timestampNanos", "timestampSeconds"}),
    ),
}  # fmt: skip
"""The presets that are JSON, by name."""
