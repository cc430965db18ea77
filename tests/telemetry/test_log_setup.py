"""`configure(logs=...)`: records of structlog, of `logging` and of libraries alike, once each, as lines and for OpenTelemetry."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from tests.backends.processes import Ended, run

START = """
import asyncio, json, logging, os, sys, threading
import structlog
from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from otel_perfopt import ConfigurationError, LogOptions, configure, emit, shutdown

def collecting():
    '''A logger provider, and where its records go.'''
    records, provider = InMemoryLogRecordExporter(), LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(records))
    return provider, lambda: [record.log_record for record in records.get_finished_logs()]
"""


def lines_of(ended: Ended) -> list[dict[str, Any]]:
    """What is on standard error, every line of it a record."""
    return [json.loads(line) for line in ended.errors.splitlines()]


def logged(code: str, **variables: str) -> list[dict[str, Any]]:
    """The lines that the code writes."""
    return lines_of(run(START + code, variables=variables))


def test_all_come_out_alike() -> None:
    """Records of structlog, of logging and of this library have the same fields, the span, and what is bound in the context."""
    code = """
from otel_perfopt.telemetry.logs import mention
configure(service_name="shop", exporter="none", logs="json")
structlog.contextvars.bind_contextvars(request="r1")
with trace.get_tracer("test").start_as_current_span("work") as span:
    structlog.get_logger().warning("said", order=7)
    structlog.get_logger("library").bind(order=7).warning("said")
    logging.getLogger("library").warning("%s", "said", extra={"order": 7})
    mention("warning", "said", order=7)
context = span.get_span_context()
print(json.dumps([f"{context.trace_id:032x}", f"{context.span_id:016x}"]))
"""
    ended = run(START + code)
    lines = lines_of(ended)
    assert [line.pop("otel.scope.name") for line in lines] == ["__main__", "library", "library", "otel_perfopt"]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
        assert [line["trace_id"], line["span_id"]] == ended.result
        assert line["code.function.name"] == "<module>"
        assert line.pop("code.line.number") > 0
        assert (line["body"], line["order"], line["request"], line["service.name"]) == ("said", 7, "r1", "shop")
        assert (line["severity_text"], line["severity_number"]) == ("WARNING", 13)
    assert lines[0] == lines[1] == lines[2] == lines[3]


def test_exceptions_alike() -> None:
    """One string each, with causes and groups; for `log.exception`, for `exc_info=` of any kind, and without one."""
    code = """
configure(exporter="none", logs="json")
try:
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ExceptionGroup("both", [ValueError("a"), KeyError("b")]) from error
except ExceptionGroup as error:
    caught = error
    structlog.get_logger().exception("failed")
    logging.getLogger().exception("failed")
    structlog.get_logger().error("failed", exc_info=True)
structlog.get_logger().error("failed", exc_info=caught)
logging.getLogger().error("failed", exc_info=caught)
structlog.get_logger().error("fine", exc_info=True)
structlog.get_logger().error("fine", stack_info=True)
"""
    *failed, fine, with_stack = logged(code)
    assert len(failed) == 5
    for line in failed:
        assert (line["exception.type"], line["exception.message"]) == ("ExceptionGroup", "both (2 sub-exceptions)")
        for part in ("ZeroDivisionError: division by zero", "direct cause", "ValueError: a", "KeyError: 'b'"):
            assert part in line["exception.stacktrace"]
    assert "exception.type" not in fine
    assert "<module>" in with_stack["code.stacktrace"]


def test_twice() -> None:
    """The second call writes each record once, as it says."""
    code = """
for preset in ("json", "json", "ecs"):
    configure(exporter="none", logs=preset)
logging.getLogger("a").warning("one")
structlog.get_logger().warning("two")
configure(exporter="none")
logging.getLogger("a").warning("three")
print(json.dumps(len(logging.getLogger().handlers)))
"""
    ended = run(START + code)
    assert [line["message"] for line in lines_of(ended)] == ["one", "two", "three"]
    assert ended.result == 1


def test_twice_loses_nothing() -> None:
    """What the first has suppressed is told when the second takes over, and not again."""
    code = """
configure(exporter="none", logs=LogOptions(repeat_limit=1, repeat_interval=0.01))
for _ in range(3):
    logging.getLogger("a").warning("slow")
configure(exporter="none", logs="ecs")
from otel_perfopt.telemetry import background
done = threading.Event()
background.after(0.05, done.set)
assert done.wait(10) and background.wait(10)
"""
    assert [line.get("suppressed") for line in logged(code)] == [None, 2]


def test_twice_while_others_log() -> None:
    """What is logged while the first tells what it has suppressed is written by the second."""
    code = """
class Stream:
    encoding = "utf-8"
    def write(self, text):
        if "suppressed" in text:
            thread = threading.Thread(target=logging.getLogger("b").info, args=("meanwhile",))
            thread.start()
            thread.join()
    def flush(self): pass
configure(exporter="none", logs=LogOptions(stream=Stream(), repeat_limit=1))
for _ in range(2):
    logging.getLogger("a").warning("slow")
configure(exporter="none", logs="json")
"""
    assert [line["body"] for line in logged(code)] == ["meanwhile"]


def test_handlers_that_are_there(tmp_path: Any) -> None:
    """Those that write to the same stream are taken off, at whatever logger; others stay."""
    code = f"""
path = {str(tmp_path / "file.log")!r}
logging.basicConfig(level="DEBUG", handlers=[logging.StreamHandler(), logging.FileHandler(path)])
own = logging.getLogger("server")
own.addHandler(logging.StreamHandler(sys.stderr))
own.propagate = False
apart = logging.getLogger("apart")
apart.addHandler(logging.StreamHandler(sys.stdout))
configure(exporter="none", logs="json")
logging.getLogger("other").info("one")
logging.getLogger("other").debug("below the level")
own.warning("two")
apart.warning("three")
structlog.get_logger("other").info("four")
"""
    ended = run(START + code)
    assert [line["body"] for line in lines_of(ended)] == ["one", "two", "three", "four"]
    assert ended.out == "three\n"
    assert (tmp_path / "file.log").read_text().splitlines() == [
        "INFO:other:one", "WARNING:server:two", "WARNING:apart:three", "INFO:other:four",
    ]  # fmt: skip


def test_levels() -> None:
    """The level is that of the root logger; a logger may have its own, structlog's included."""
    code = """
configure(exporter="none", logs=LogOptions(level="WARNING"))
logging.getLogger("loud").setLevel("DEBUG")
for name in ("quiet", "loud"):
    structlog.get_logger(name).info(f"{name} of structlog")
    logging.getLogger(name).info(f"{name} of logging")
"""
    assert [line["body"] for line in logged(code)] == ["loud of structlog", "loud of logging"]


def test_structlog_that_was_configured() -> None:
    """It is configured anew, and what is logged wrongly does not raise."""
    code = """
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
configure(exporter="none", logs="json")
log = structlog.get_logger()
log.info("100 % sure")
log.info("%d items", 3)
log.info("%d items", "many")
log.info(None, extra={"name": 1}, message="m", args=(1,), exc_info="nonsense", level="high", positional_args=7)
"""
    lines = logged(code)
    assert [line["body"] for line in lines] == ["100 % sure", "3 items", "%d items ('many',)", ""]
    assert lines[-1]["extra"] == {"name": 1}
    assert (lines[-1]["message"], lines[-1]["positional_args"]) == ("m", 7)


def test_the_resource() -> None:
    """The service is that of the variables, as far as they know it."""
    variables = {"OTEL_RESOURCE_ATTRIBUTES": "service.version=1.2,deployment.environment.name=a%20b,service.name=no"}
    code = 'configure(exporter="none", logs="ecs")\nlogging.warning("hello")'
    (line,) = logged(code, OTEL_SERVICE_NAME="shop", **variables)
    assert (line["service.name"], line["service.version"], line["service.environment"]) == ("shop", "1.2", "a b")
    (line,) = logged(code, **variables)
    assert line["service.name"] == "no"
    (line,) = logged(code)
    assert "service.name" not in line
    code = """
configure(exporter="none", logs="gcp")
with trace.get_tracer("test").start_as_current_span("work"):
    logging.warning("hello")
"""
    (line,) = logged(code, GOOGLE_CLOUD_PROJECT="p1")
    assert line["logging.googleapis.com/trace"].startswith("projects/p1/traces/")


def test_without_opentelemetry() -> None:
    """With OTEL_SDK_DISABLED lines are written, without ids; the SDK is not loaded."""
    code = """
import json, logging, sys
from otel_perfopt import configure
configure(logs="json")
logging.warning("hello")
print(json.dumps("opentelemetry.sdk" in sys.modules))
"""
    ended = run(code, OTEL_SDK_DISABLED="true")
    (line,) = lines_of(ended)
    assert line["body"] == "hello"
    assert "trace_id" not in line
    assert ended.result is False


def test_a_span_that_is_not_recorded() -> None:
    """Its ids are on the line: whoever sampled it elsewhere may have recorded it."""
    code = """
configure(exporter="none", logs="json")
with trace.get_tracer("test").start_as_current_span("work") as span:
    assert not span.is_recording()
    logging.warning("hello")
"""
    (line,) = logged(code, OTEL_TRACES_SAMPLER="always_off")
    assert int(line["trace_id"], 16) != 0
    assert int(line["trace_flags"], 16) & 1 == 0


def test_wrong_options_set_nothing_up() -> None:
    """The error names the argument."""
    code = """
for logs in ("xml", 7, True):
    try:
        configure(exporter="none", logs=logs)
    except ConfigurationError as error:
        print(json.dumps([error.context["setting"], type(_logs.get_logger_provider()).__name__, logging.getLogger().handlers]))
"""
    assert run(START + code).out == '["logs", "ProxyLoggerProvider", []]\n' * 3


def test_tasks() -> None:
    """Each logs with what is bound in its own context, and with its own span; also from structlog's coroutines."""
    code = """
configure(exporter="none", logs="json")
async def work(number):
    structlog.contextvars.bind_contextvars(task=number)
    with trace.get_tracer("test").start_as_current_span("work") as span:
        await asyncio.sleep(0)
        logging.getLogger("a").info("one", extra={"span": f"{span.get_span_context().span_id:016x}"})
        await structlog.get_logger("a").ainfo("two", span=f"{span.get_span_context().span_id:016x}")
async def main():
    await asyncio.gather(*(work(number) for number in range(3)))
asyncio.run(main())
"""
    lines = logged(code)
    assert Counter((line["body"], line["task"]) for line in lines) == Counter((b, n) for b in ("one", "two") for n in range(3))
    assert all(line["span"] == line["span_id"] for line in lines)
    assert {line["code.function.name"] for line in lines} == {"work"}
    assert len({line["span_id"] for line in lines}) == 3


def test_a_forked_child() -> None:
    """It writes, also if another thread was about to write when it was forked, and tells only what it suppressed itself."""
    code = """
configure(exporter="none", logs=LogOptions(repeat_limit=1))
log, handler = logging.getLogger("a"), logging.getLogger().handlers[0]
for _ in range(3):
    log.warning("slow")
held, forked = threading.Event(), threading.Event()
def hold():
    with handler.lock:
        held.set()
        forked.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    for _ in range(2):
        log.warning("slow")
    sys.exit(0)
_, status = os.waitpid(child, 0)
forked.set()
thread.join()
print(json.dumps(status))
"""
    ended = run(START + code)
    assert ended.result == 0
    told = [(line["body"], line.get("suppressed")) for line in lines_of(ended)]
    assert told == [("slow", None), ("slow", None), ("slow", 1), ("slow", 2)]


def test_opentelemetry_gets_each_record_once() -> None:
    """With severity, masked attributes, the span and the exception; events are not told twice."""
    code = """
provider, records = collecting()
configure(exporter="none", logs="json", logger_provider=provider)
with trace.get_tracer("test").start_as_current_span("work") as span:
    structlog.get_logger("a").warning("one", order=7, user={"password": "x", "tags": ["b", None]}, huge=2**70)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("b").exception("two")
emit("order.paid", {"amount": 3})
first, second, event = records()
assert first.trace_id == second.trace_id == span.get_span_context().trace_id
attributes = dict(first.attributes)
attributes["user"] = json.loads(json.dumps(dict(attributes["user"]), default=list))
print(json.dumps([first.body, first.severity_text, first.severity_number.value, attributes["order"], attributes["user"],
    attributes["huge"], second.attributes["exception.type"], "ZeroDivisionError" in second.attributes["exception.stacktrace"],
    event.event_name, first.timestamp > 0]))
"""
    ended = run(START + code)
    assert [line["body"] for line in lines_of(ended)] == ["one", "two"]
    assert ended.result == [
        "one", "WARNING", 13, 7, {"password": "***", "tags": ["b", None]}, str(2**70), "ZeroDivisionError", True, "order.paid",
        True,
    ]  # fmt: skip


def test_opentelemetry_can_be_left_out() -> None:
    """With `otlp=False` there are only lines."""
    code = """
provider, records = collecting()
configure(exporter="none", logs=LogOptions(otlp=False), logger_provider=provider)
logging.warning("hello")
print(json.dumps(len(records())))
"""
    assert run(START + code).result == 0


@pytest.mark.parametrize("level", ["root", "logger"])
def test_handlers_of_opentelemetry(level: str) -> None:
    """Where one hands the records over already, it alone does."""
    code = """
import warnings
provider, records = collecting()
class Handler(logging.Handler):
    def emit(self, record):
        provider.get_logger(record.name).emit(body=record.getMessage())
Handler.__module__ = "opentelemetry.instrumentation.logging.handler"
logging.getLogger({name!r}).addHandler(Handler())
configure(exporter="none", logs="json", logger_provider=provider)
logging.getLogger("a.b").warning("one")
structlog.get_logger("a.b").warning("two")
logging.getLogger("c").warning("three")
print(json.dumps([record.body for record in records()]))
""".replace("{name!r}", repr({"root": None, "logger": "a"}[level]))
    assert run(START + code).result == ["one", "two", "three"]


def test_instrumentation_of_structlog() -> None:
    """Its processor hands over what structlog logs; ours only the rest."""
    code = """
provider, records = collecting()
configure(exporter="none", logs="json", logger_provider=provider)
class StructlogProcessor:
    def __call__(self, logger, name, event):
        provider.get_logger("structlog").emit(body=event["event"])
        return event
StructlogProcessor.__module__ = "opentelemetry.instrumentation.structlog"
structlog.configure(processors=[StructlogProcessor(), *structlog.get_config()["processors"]])
structlog.get_logger("a").warning("one")
logging.getLogger("a").warning("two")
print(json.dumps([record.body for record in records()]))
"""
    assert run(START + code).result == ["one", "two"]


def test_processors_that_log_or_raise() -> None:
    """Neither is a loop, and neither reaches who logs; the lines are written."""
    code = """
provider = LoggerProvider()
seen = []
class Processor(LogRecordProcessor):
    def on_emit(self, record):
        seen.append(record.log_record.body)
        logging.getLogger("processor").warning("seen")
        raise RuntimeError("no")
    def shutdown(self): pass
    def force_flush(self, timeout_millis=0): return True
provider.add_log_record_processor(Processor())
configure(exporter="none", logs="json", logger_provider=provider)
logging.warning("hello")
structlog.get_logger().warning("world")
print(json.dumps(seen))
"""
    ended = run(START + code)
    assert ended.result == ["hello", "world"]
    assert [line["body"] for line in lines_of(ended)] == ["hello", "seen", "world", "seen"]


def test_what_is_logged_while_exporting() -> None:
    """It is written, and never exported, whichever library logs it."""
    code = """
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
exported = []
class Exporter(LogRecordExporter):
    def export(self, batch):
        exported.extend(record.log_record.body for record in batch)
        logging.getLogger("urllib3.connectionpool").info("sent")
        logging.getLogger("opentelemetry.exporter").warning("slow")
        return LogRecordExportResult.SUCCESS
    def shutdown(self): pass
    def force_flush(self, timeout_millis=0): return True
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(Exporter()))
configure(exporter="none", logs="json", logger_provider=provider)
logging.getLogger("opentelemetry.sdk").warning("of the SDK")
logging.getLogger("urllib3.connectionpool").warning("of the application")
logging.warning("hello")
for _ in range(3):
    provider.force_flush()
print(json.dumps(exported))
"""
    ended = run(START + code)
    assert ended.result == ["of the application", "hello"]
    assert [line["body"] for line in lines_of(ended)] == ["of the SDK", "of the application", "hello", "sent", "slow"]


def test_after_shutdown() -> None:
    """Lines go on, and the SDK does not complain on each."""
    code = """
configure(exporter="none", logs="json")
shutdown()
logging.getLogger("a").warning("still here")
"""
    assert [line["body"] for line in logged(code)] == ["still here"]


def test_the_rest_at_exit() -> None:
    """What was suppressed in an interval that runs is told."""
    code = """
configure(exporter="none", logs="json")
for _ in range(8):
    structlog.get_logger("a").warning("slow", attempt=1)
"""
    lines = logged(code)
    assert [line.get("suppressed") for line in lines] == [None] * 5 + [3]
    assert lines[-1]["otel.scope.name"] == "a"


def test_nobody_reads_standard_error() -> None:
    """A closed one, and a pipe without a reader, are nobody's business."""
    code = """
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 2)
configure(exporter="none", logs="json")
logging.warning("hello")
structlog.get_logger().warning("world")
os.close(2)
logging.warning("hello")
sys.stderr = None
print("done")
"""
    assert run(START + code).out == "done\n"
