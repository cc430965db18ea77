"""Structured logs through real shippers: rsyslog and the Collector parse every line, and each record arrives once."""

import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from otel_perfopt.telemetry.structured_logs.collecting import collect
from otel_perfopt.telemetry.structured_logs.presets import LINES, to_json
from otel_perfopt.telemetry.structured_logs.record import Service
from tests.backends.jaeger import Jaeger
from tests.backends.processes import environment, run
from tests.backends.programs import program
from tests.backends.receivers import HttpBackend
from tests.backends.repositories import make_repository
from tests.backends.servers import Server, free_port, wait_for
from tests.telemetry.test_log_lines import keys, plain, texts, values

SETTINGS = Path(__file__).resolve().parents[2] / "integrations" / "logs"
REQUESTS = 60
NASTY = """
import logging, sys
import structlog
from otel_perfopt import configure

configure(service_name="nasty", exporter={exporter!r}, logs={preset!r})
log = structlog.get_logger("nasty")

class Silent:
    def __repr__(self):
        raise ValueError("no")

cycle = []
cycle.append(cycle)
for number, value in enumerate([
    "two\\nlines\\r\\nand\\ttabs", "\\u2028\\u2029\\x85\\x0b\\x0c\\x1c", "nul\\0nul", "\\ud800 lone", "Ω 漢 \\U0001f600",
    "\\\\ \\" '", "\\x1b[31mred", b"\\xff\\x00\\xfe", "x" * 100_000, ["y"] * 100_000, Silent(), float("nan"), 2**200, cycle,
    {{1: {{"a.b": None}}, "": "empty"}}, "<13>Jan  1 00:00:00 host tag: not a header",
    '{{"json": "in json"}}', "@cee: {{", "%d %s {{}}", -0.0, 1e300, True,
]):
    log.info("nasty", number=number, value=value)
logging.getLogger("nasty").warning("of %s\\nin two lines", "logging", extra={{"number": -1, "password": "hunter2"}})
try:
    raise ExceptionGroup("both", [ValueError("a\\nb"), KeyError(b"c")])
except ExceptionGroup:
    log.exception("failed", number=-2, body="mine", message="mine", timestamp="mine")
print("done")
"""


@dataclass(frozen=True)
class Rsyslog:
    """An rsyslog that follows a file.

    Attributes:
        lines: the file.
        parsed: where it writes the fields of each line that it could parse.
        unparsed: where it writes the others.
    """

    lines: Path
    parsed: Path
    unparsed: Path

    def found(self, count: int) -> list[dict[str, Any]]:
        """What was parsed, once there are so many."""
        wait_for(lambda: self.parsed.is_file() and self.parsed.read_bytes().count(b"\n") >= count)
        assert not self.unparsed.exists(), self.unparsed.read_text()
        return [json.loads(line) for line in self.parsed.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    """An rsyslog of its own, with the settings that users get."""
    command = program("rsyslogd")
    (tmp_path / "rsyslog").mkdir()
    config = tmp_path / "rsyslog.conf"
    text = (SETTINGS / "rsyslog.conf").read_text().replace("/var/log", str(tmp_path))
    config.write_text(f'global(workDirectory="{tmp_path}/rsyslog")\n{text}')
    lines = tmp_path / "shop.log"
    lines.touch()
    pid = tmp_path / "rsyslog.pid"
    with Server([command, "-n", "-f", config, "-i", pid], ready=pid.is_file, folder=tmp_path):
        yield Rsyslog(lines, tmp_path / "shop-parsed.log", tmp_path / "shop-unparsed.log")


@dataclass(frozen=True)
class Arrived:
    """A log record as a store of logs gets it from a Collector."""

    body: Any
    severity: tuple[int, str]
    seconds: float
    trace: tuple[str, str]
    scope: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    event: str


class Store(HttpBackend):
    """A store of logs, in the place of Loki."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[Arrived] = []

    def receive(self, request: Any) -> None:
        """Keep the log records."""
        for part in request.resource_logs:
            for scoped in part.scope_logs:
                self.logs += [_arrived(record, scoped.scope.name, _fields(part.resource)) for record in scoped.log_records]

    def found(self, count: int) -> list[Arrived]:
        """The records, once there are so many, and no more for a moment."""
        wait_for(lambda: len(self.logs) >= count)
        time.sleep(0.5)  # what would come twice comes now
        return self.logs


def _arrived(record: Any, scope: str, resource: dict[str, Any]) -> Arrived:
    return Arrived(
        _value(record.body),
        (record.severity_number, record.severity_text),
        record.time_unix_nano / 1e9,
        (record.trace_id.hex(), record.span_id.hex()),
        scope,
        _fields(record),
        resource,
        record.event_name,
    )


def _fields(message: Any) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in message.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {item.key: _value(item.value) for item in value.kvlist_value.values}
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@contextmanager
def collecting(config: Path, folder: Path, **variables: str) -> Iterator[Store]:
    """A Collector with settings that users get, and a store of logs behind it."""
    log = folder / "otelcol.log"
    with Store() as store:
        server = Server(
            [program("otelcol"), "--config", config],
            ready=lambda: "Everything is ready" in log.read_text(),
            folder=folder,
            variables={"LOGS": store.endpoint, **variables},
        )
        with server:
            yield store


def demo(lines: Path, folder: Path, *options: str, **variables: str) -> None:
    """Run the demo, with its standard error in a file."""
    command = [sys.executable, "-W", "error", "-c", "import sys; from otel_perfopt.cli import main; sys.exit(main())", "demo"]
    command += ["--repo", str(make_repository(folder / "repository")), "--requests", str(REQUESTS), *options]
    with lines.open("ab") as stream:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=stream,
            cwd=folder,
            env=environment(variables=variables),
            timeout=50,
            check=False,
        )
    assert done.returncode == 0, lines.read_text()
    assert b"Speed-up" in done.stdout


def read(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_bytes().splitlines()]


def test_the_demo_through_rsyslog(rsyslog: Rsyslog, jaeger: Jaeger, tmp_path: Path) -> None:
    """Every line is parsed with all its fields; each request has the trace that Jaeger has of it."""
    variables = {"OTEL_SERVICE_NAME": "logged-demo", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    demo(
        rsyslog.lines,
        tmp_path,
        "--logs",
        "json",
        "--otlp",
        jaeger.otlp_http,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        **variables,
    )
    written = read(rsyslog.lines)
    assert rsyslog.found(len(written)) == written
    assert [line["body"] for line in written[:-1]] == ["request answered"] * REQUESTS
    assert written[-1]["body"] == f"exported to {jaeger.otlp_http}"
    spans = jaeger.spans("logged-demo", lambda found: sum(span.name == "request" for span in found) == REQUESTS)
    requests = {(span.trace_id, span.span_id): span.attributes["file.path"] for span in spans if span.name == "request"}
    assert {(line["trace_id"], line["span_id"]): line["file.path"] for line in written[:-1]} == requests
    assert {line["trace_id"] for line in written[:-1]} == {span.trace_id for span in spans if span.name.startswith("load ")} | {
        trace_id for trace_id, _ in requests
    }


@pytest.mark.parametrize("preset", LINES)
def test_nasty_records_through_rsyslog(preset: str, rsyslog: Rsyslog) -> None:
    """Whatever is in a record, each preset's line comes through as it was written."""
    ended = run(NASTY.format(exporter="none", preset=preset))
    rsyslog.lines.write_text(ended.errors, encoding="utf-8")
    written = read(rsyslog.lines)
    assert len(written) == 24
    assert rsyslog.found(len(written)) == written
    assert "hunter2" not in ended.errors


def test_a_file_that_begins_anew_through_rsyslog(rsyslog: Rsyslog) -> None:
    """A second run with `2>` truncates the file of the first; its lines are found, too."""
    written: list[dict[str, Any]] = []
    for count in (30, 20, 10):  # each file is shorter than the one before, whenever rsyslog looks
        lines = [{"count": count, "number": number} for number in range(count)]
        rsyslog.lines.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        written += lines
        assert rsyslog.found(len(written)) == written


def test_any_record_through_rsyslog(rsyslog: Rsyslog) -> None:
    """Records that Hypothesis makes up come through as they were written."""
    made: list[str] = []

    @settings(derandomize=True, max_examples=150, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts, keys, values)
    def make(message: str, key: Any, value: Any) -> None:
        record = collect(logging.LogRecord("any", 20, "any.py", 1, message, None, None), {key: value}, plain())
        made.append(to_json(LINES["json"].render(record, Service("any")), ascii_only=False))

    make()
    rsyslog.lines.write_text("".join(f"{line}\n" for line in made), encoding="utf-8")
    assert rsyslog.found(len(made)) == [json.loads(line) for line in made]


def test_the_demo_through_the_collector(tmp_path: Path) -> None:
    """It reads the lines, and makes the records of them that OTLP would have brought."""
    lines = tmp_path / "shop.log"
    demo(lines, tmp_path, "--logs", "json")
    written = read(lines)
    with collecting(SETTINGS / "collector.yaml", tmp_path, LINES=str(lines)) as store:
        found = store.found(REQUESTS)
    assert len(written) == len(found) == REQUESTS
    for line, record in zip(written, found, strict=True):
        assert record.body == "request answered" == line["body"]
        assert record.severity == (9, "INFO")
        assert record.seconds == pytest.approx(datetime.fromisoformat(line["timestamp"]).timestamp(), abs=1e-5)
        assert record.trace == (line["trace_id"], line["span_id"])
        assert record.scope == "otel_perfopt.demo"
        assert record.resource["service.name"] == "otel-perfopt-demo"
        assert (record.attributes["file.path"], record.attributes["duration"]) == (line["file.path"], line["duration"])
        assert not record.attributes.keys() & {"body", "trace_id", "span_id", "severity_text", "timestamp", "service.name"}


def test_nasty_records_through_the_collector(tmp_path: Path) -> None:
    """Whatever is in a record, its value arrives as it was written; levels and exceptions, too."""
    lines = tmp_path / "shop.log"
    lines.write_text(run(NASTY.format(exporter="none", preset="json")).errors, encoding="utf-8")
    written = read(lines)
    with collecting(SETTINGS / "collector.yaml", tmp_path, LINES=str(lines)) as store:
        found = store.found(len(written))
    assert [record.body for record in found] == [line["body"] for line in written]
    for line, record in zip(written, found, strict=True):
        own = {
            key: value for key, value in line.items() if key in {"value", "number", "password", "body_", "exception.stacktrace"}
        }
        assert {key: record.attributes[key] for key in own} == own
    assert [record.severity for record in found[-2:]] == [(13, "WARNING"), (17, "ERROR")]


def test_each_record_once_over_otlp(jaeger: Jaeger, tmp_path: Path) -> None:
    """What the demo writes as lines arrives as log records, too, beside the events; in the traces that Jaeger has."""
    lines = tmp_path / "demo.log"
    at = {name: f"127.0.0.1:{free_port()}" for name in ("OTLP_GRPC", "OTLP_HTTP", "METRICS", "HEALTH")}
    with collecting(SETTINGS.parent / "collector" / "collector.yaml", tmp_path, TRACES=jaeger.otlp_grpc, **at) as store:
        variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "logged-over-otlp"}
        demo(lines, tmp_path, "--logs", "json", "--otlp", f"http://{at['OTLP_HTTP']}", **variables)
        found = [record for record in store.found(REQUESTS) if not record.event]
    *written, exported = read(lines)  # the last one was written when everything had been delivered
    assert exported["body"].startswith("exported to ")
    assert {record.scope for record in found} == {"otel_perfopt.demo"}
    arrived = Counter((record.trace, record.body, record.attributes["file.path"], record.severity) for record in found)
    assert arrived == Counter(
        ((line["trace_id"], line["span_id"]), line["body"], line["file.path"], (9, "INFO")) for line in written
    )
    assert set(arrived.values()) == {1}
    assert {record.resource["service.name"] for record in found} == {"logged-over-otlp"}
    spans = jaeger.spans("logged-over-otlp", lambda spans: sum(span.name == "request" for span in spans) == REQUESTS)
    assert {span.itself for span in spans if span.name == "request"} == {trace for trace, *_ in arrived}


def test_nasty_records_over_otlp(tmp_path: Path) -> None:
    """No value makes a batch fail; each arrives as the line has it."""
    with Store() as store:
        code = NASTY.format(exporter=store.endpoint, preset="json")
        variables = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
        }
        written = [json.loads(line) for line in run(code, variables=variables).errors.splitlines()]
        found = store.found(len(written))
    assert [record.body for record in found] == [line["body"] for line in written]
    for line, record in zip(written, found, strict=True):
        assert record.attributes.get("value") == line.get("value")
        assert record.attributes.get("exception.stacktrace") == line.get("exception.stacktrace")
    assert found[-2].attributes["password"] == "***"
    assert (found[-1].attributes["body"], found[-1].attributes["timestamp"]) == ("mine", "mine")
