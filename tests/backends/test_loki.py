"""Events and log records in a real Loki: found by service and by trace, with their attributes, each once."""

import re
from pathlib import Path

import pytest

from tests.backends.loki import Loki
from tests.backends.processes import run

ROOT = Path(__file__).resolve().parents[2]
SERVICE = """
    import json, logging, sys
    from opentelemetry import trace
    from otel_perfopt import configure, emit, shutdown

    configure(service_name="shop", logs="json")
    tracer = trace.get_tracer("web")
    ids = []
    for number in (1, 2):
        with tracer.start_as_current_span("POST /order") as span:
            emit("order.paid", {"amount": number})
            logging.getLogger("shop.orders").warning("order %d\\nis late", number, extra={"password": "hunter2", "days": number})
            ids.append(format(span.get_span_context().trace_id, "032x"))
    arrived = shutdown()
    print(json.dumps([arrived, ids]))
"""


@pytest.fixture(scope="module")
def ids(loki: Loki) -> list[str]:
    """The traces of two requests whose records Loki has."""
    arrived, ids = run(
        SERVICE,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.url}/otlp/v1/logs",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    ).result
    assert arrived
    return list(ids)


def test_what_a_request_has_told(loki: Loki, ids: list[str]) -> None:
    """An event and a log record of each request, found by its trace, and nobody else's."""
    for number, trace_id in enumerate(ids, 1):
        found = loki.entries(f'{{service_name="shop"}} | trace_id="{trace_id}"', at_least=2)
        by_line = {entry.line: entry.labels for entry in found}
        assert len(found) == len(by_line) == 2
        assert by_line["order.paid"]["amount"] == str(number)
        record = by_line[f"order {number}\nis late"]
        assert record["days"] == str(number)
        assert record["detected_level"] == "warn"
        assert record["scope_name"] == "shop.orders"


def test_secrets_never_arrive(loki: Loki, ids: list[str]) -> None:
    """What is masked in a line is masked in a record."""
    assert ids
    found = loki.entries('{service_name="shop"} |= "late"', at_least=2)
    assert "hunter2" not in repr(found)


def test_grafana_finds_the_trace_of_a_record() -> None:
    """The data source looks for the trace where Loki has it: in the metadata, under this name."""
    folder = ROOT / "integrations" / "grafana" / "provisioning" / "datasources"
    text = "".join(page.read_text() for page in folder.glob("*.yaml"))
    assert re.search(r"matcherType:\s*label", text)
    assert re.search(r"matcherRegex:\s*trace_id", text)
