"""A Jaeger of one's own, and what it tells about traces."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backends.programs import program
from tests.backends.servers import Server, free_port, get_json, wait_for

SETTINGS = Path(__file__).resolve().parents[2] / "integrations" / "jaeger" / "jaeger.yaml"


@dataclass(frozen=True)
class Span:
    """A span as Jaeger tells it.

    Attributes:
        name: its name.
        trace_id: the id of its trace, as 32 hexadecimal digits.
        span_id: its own id.
        parent: the id of its parent; None for a root span.
        links: pairs of the trace id and the span id that it is linked to.
        attributes: its attributes, with the kind and the status that Jaeger adds.
        resource: the attributes of the process, and `service.name`.
        events: its events.
    """

    name: str
    trace_id: str
    span_id: str
    parent: str | None
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[Any, ...]

    @property
    def itself(self) -> tuple[str, str]:
        """What links to it name."""
        return self.trace_id, self.span_id

    @property
    def is_error(self) -> bool:
        """Whether it failed."""
        return self.attributes.get("error") is True


@dataclass(frozen=True)
class Jaeger:
    """A Jaeger that runs.

    Attributes:
        url: where to ask it, and where people look at it.
        otlp_grpc: where it takes traces over gRPC.
        otlp_http: where it takes traces over HTTP.
    """

    url: str
    otlp_grpc: str
    otlp_http: str

    def spans(self, service: str, until: Callable[[list[Span]], object] = bool) -> list[Span]:
        """Return all spans of a service, once they are as `until` wants them."""
        return self._ask("/api/traces", until, service=service, limit="10000", lookback="1h")

    def trace(self, trace_id: str, until: Callable[[list[Span]], object] = bool) -> list[Span]:
        """Return the spans of one trace, once they are as `until` wants them."""
        return self._ask(f"/api/traces/{trace_id}", until)

    def _ask(self, path: str, until: Callable[[list[Span]], object], **parameters: str) -> list[Span]:
        def ask() -> list[Span] | None:
            found = get_json(self.url + path, **parameters) or {}
            spans = [span for trace in found.get("data") or () for span in _spans(trace)]
            return spans if until(spans) else None

        return wait_for(ask)


def _spans(trace: Any) -> Iterator[Span]:
    for span in trace["spans"]:
        process = trace["processes"][span["processID"]]
        parents = [each for each in span["references"] if each["refType"] == "CHILD_OF"]
        links = [each for each in span["references"] if each["refType"] == "FOLLOWS_FROM"]
        yield Span(
            span["operationName"],
            span["traceID"],
            span["spanID"],
            parents[0]["spanID"] if parents else None,
            tuple((link["traceID"], link["spanID"]) for link in links),
            _tags(span["tags"]),
            {"service.name": process["serviceName"], **_tags(process["tags"])},
            tuple(span["logs"]),
        )


def _tags(tags: Sequence[Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in tags}


@contextmanager
def running(folder: Path) -> Iterator[Jaeger]:
    """Run a Jaeger with the settings that people get."""
    at = {name: f"127.0.0.1:{free_port()}" for name in ("QUERY", "QUERY_GRPC", "HEALTH", "OTLP_GRPC", "OTLP_HTTP")}
    command = [program("jaeger"), "--config", SETTINGS]
    variables = {**at, "OTEL_TRACES_SAMPLER": "always_off"}  # else it traces what it is asked, sends that to port 4317, and waits
    with Server(command, ready=f"http://{at['HEALTH']}/status", folder=folder, variables=variables):
        yield Jaeger(*(f"http://{at[name]}" for name in ("QUERY", "OTLP_GRPC", "OTLP_HTTP")))
