"""OTLP backends inside the test process: one that decodes what arrives, over HTTP and gRPC, and several that misbehave."""

import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from itertools import chain, repeat
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces_pb

grpc: Any = import_module("grpc")  # untyped, like what protobuf makes for it
DEADLINE = 30.0
REQUESTS: dict[str, Any] = {
    "/v1/traces": traces_pb.ExportTraceServiceRequest,
    "/v1/metrics": metrics_pb.ExportMetricsServiceRequest,
    "/v1/logs": logs_pb.ExportLogsServiceRequest,
}

Attributes = dict[str, Any]


class Span(NamedTuple):
    name: str
    attributes: Attributes
    scope: str
    resource: Attributes


class Point(NamedTuple):
    metric: str
    attributes: Attributes
    value: float  # of a histogram, the count
    total: float  # of a histogram, the sum
    resource: Attributes


class Record(NamedTuple):
    event: str
    attributes: Attributes
    scope: str
    resource: Attributes


class Backend:
    """What has arrived, decoded."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.points: list[Point] = []
        self.records: list[Record] = []
        self._changed = threading.Condition()

    def receive(self, request: Any) -> None:
        """Take in a request of any signal."""
        with self._changed:
            for part in getattr(request, "resource_spans", ()):
                self.spans += _spans(part)
            for part in getattr(request, "resource_metrics", ()):
                self.points += _points(part)
            for part in getattr(request, "resource_logs", ()):
                self.records += _records(part)
            self._changed.notify_all()

    def wait_for(self, arrived: Callable[[], object]) -> None:
        """Wait until something has arrived."""
        with self._changed:
            assert self._changed.wait_for(arrived, DEADLINE), f"in vain: {self.spans} {self.points} {self.records}"

    def last(self, metric: str, **resource: Any) -> dict[frozenset[tuple[str, Any]], Point]:
        """The last point of each series of a metric, from a process with these resource attributes."""
        return {
            frozenset(point.attributes.items()): point
            for point in self.points
            if point.metric == metric and resource.items() <= point.resource.items()
        }


class HttpBackend(Backend):
    """OTLP over HTTP; `refusals` are the statuses of its first answers."""

    protocol = "http/protobuf"

    def __init__(self, *refusals: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__()
        backend = self
        answers = chain(refusals, repeat(200))
        extra = tuple(headers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                encoding = self.headers.get("Content-Encoding")
                data = gzip.decompress(data) if encoding == "gzip" else zlib.decompress(data) if encoding == "deflate" else data
                answer = next(answers)
                if answer == 200:
                    backend.receive(REQUESTS[self.path].FromString(data))
                self.send_response(answer)
                for name, value in extra:
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class GrpcBackend(Backend):
    """OTLP over gRPC; `status` is the code to refuse with."""

    protocol = "grpc"

    def __init__(self, status: Any = None) -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(8))

        def handler(response: Any) -> Any:
            def export(_: Any, request: Any, context: Any) -> Any:
                if status is not None:
                    context.abort(status, "not today")
                self.receive(request)
                return response()

            return type("Servicer", (), {"Export": export})()

        for module, service, response in (
            ("trace", "TraceService", traces_pb.ExportTraceServiceResponse),
            ("metrics", "MetricsService", metrics_pb.ExportMetricsServiceResponse),
            ("logs", "LogsService", logs_pb.ExportLogsServiceResponse),
        ):
            rpc = import_module(f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2_grpc")
            getattr(rpc, f"add_{service}Servicer_to_server")(handler(response), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


class Listener:
    """A port where connections are accepted and never answered; or, unless `accepting`, refused."""

    def __init__(self, *, accepting: bool = True) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        if not accepting:
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Babbler(Listener):
    """A port where every connection is answered with nonsense, and closed."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._babble, daemon=True).start()
        return self

    def _babble(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                connection.sendall(bytes(range(256)))
                connection.close()
            except OSError:
                if self._socket.fileno() < 0:
                    return


def _spans(part: Any) -> list[Span]:
    resource = attributes_of(part.resource)
    return [
        Span(span.name, attributes_of(span), scoped.scope.name, resource) for scoped in part.scope_spans for span in scoped.spans
    ]


def _points(part: Any) -> list[Point]:
    resource = attributes_of(part.resource)
    found = []
    for metric in (metric for scoped in part.scope_metrics for metric in scoped.metrics):
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            if kind.endswith("histogram"):
                value, total = point.count, point.sum
            else:
                value = total = getattr(point, point.WhichOneof("value"))
            found.append(Point(metric.name, attributes_of(point), value, total, resource))
    return found


def _records(part: Any) -> list[Record]:
    resource = attributes_of(part.resource)
    return [
        Record(record.event_name, attributes_of(record), scoped.scope.name, resource)
        for scoped in part.scope_logs
        for record in scoped.log_records
    ]


def attributes_of(message: Any) -> Attributes:
    """The attributes of a protobuf message as a dict."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in message.attributes}
