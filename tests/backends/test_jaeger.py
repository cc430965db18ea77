"""Traces in a real Jaeger: what people see there of requests, loads, waits and batches, and how these hang together."""

import textwrap
import urllib.request
from pathlib import Path

import pytest

from tests.backends.jaeger import Jaeger, Span
from tests.backends.processes import run
from tests.backends.repositories import make_repository

ROOT = Path(__file__).resolve().parents[2]
SERVICE = """
    import asyncio, threading
    from concurrent.futures import ThreadPoolExecutor
    from opentelemetry import context, trace
    from otel_perfopt import (
        AsyncBatchProcessor, BatchProcessor, Cache, LazyLoader, ResourcePool, cached, configure, measure_performance, shutdown
    )

    configure()
    tracer = trace.get_tracer("shop.web")
    pool = ResourcePool("connections", object, min_size=0, max_size=1)
    writes = BatchProcessor("writes", lambda items: [item if item else ZeroDivisionError(item) for item in items], batch_size=3)

    @cached(name="products")
    def product(number):
        with pool.lease():
            return prices.get(number, lambda: 10 // number)

    prices = Cache("prices")

    @measure_performance("orders.total")
    async def total(numbers):
        return sum(numbers)

    def request(number):
        with tracer.start_as_current_span("GET /product", attributes={"number": number}, kind=trace.SpanKind.SERVER):
            product(number)

    request(1)
    request(1)
    try:
        request(0)
    except ZeroDivisionError:
        pass

    with tracer.start_as_current_span("threads"):
        outer = context.get_current()
        def job(number):
            token = context.attach(outer)
            try:
                product(number)
            finally:
                context.detach(token)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(job, (2, 3)))

    async def tasks():
        async with AsyncBatchProcessor("lookups", fetch, batch_size=2) as lookups:
            async def ask(number):
                with tracer.start_as_current_span(f"task {number}"):
                    return await lookups.add(number)
            with tracer.start_as_current_span("tasks"):
                await asyncio.gather(ask(1), ask(2), total([1]))

    async def fetch(numbers):
        return numbers

    asyncio.run(tasks())

    for number in range(3):
        with tracer.start_as_current_span(f"write {number}"):
            done = writes.add(number)
    writes.flush()
    with tracer.start_as_current_span("lazy"):
        LazyLoader(lambda: "model", name="model").get()
    writes.close()
    print("true" if shutdown() else "false")
"""


def by_name(spans: list[Span]) -> dict[str, list[Span]]:
    """The spans of each name."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


def send(jaeger: Jaeger, code: str | Path, service: str, protocol: str = "grpc") -> None:
    """Run code that exports its traces to Jaeger."""
    endpoint = jaeger.otlp_grpc if protocol == "grpc" else jaeger.otlp_http
    run(
        code,
        OTEL_SERVICE_NAME=service,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def shop(request: pytest.FixtureRequest, jaeger: Jaeger) -> dict[str, list[Span]]:
    """The spans of a small service, as Jaeger has them."""
    service = f"shop-{request.param.partition('/')[0]}"
    send(jaeger, SERVICE, service, request.param)
    return by_name(jaeger.spans(service, lambda spans: {"load model", "flush writes"} <= {span.name for span in spans}))


def test_a_request_shows_what_it_waited_for(shop: dict[str, list[Span]]) -> None:
    """The first request has a load, a wait for the pool, and the load below; the second one was a hit, and has none of it."""
    first, second, _ = sorted(shop["GET /product"], key=lambda span: ("error" in span.attributes, -len(children(shop, span))))
    load = next(span for span in shop["load products"] if span.parent == first.span_id)
    assert children(shop, second) == []
    assert {span.name for span in children(shop, load)} == {"acquire connections", "load prices"}
    assert load.attributes["perfopt.cache.name"] == "products"
    assert load.attributes["otel.scope.name"] == "otel_perfopt"
    assert first.attributes["span.kind"] == "server"
    assert load.trace_id == first.trace_id
    (wait,) = [span for span in shop["acquire connections"] if span.trace_id == first.trace_id]
    (creation,) = shop["create connections"]
    assert creation.parent is None
    assert creation.itself in wait.links
    assert wait.attributes["perfopt.pool.name"] == "connections"


def test_a_failure_is_an_error_all_the_way(shop: dict[str, list[Span]]) -> None:
    """The loads below a failed request failed, too, with the type of the error; nothing else did."""
    (request,) = [span for span in shop["GET /product"] if span.is_error]
    failed = [span for spans in shop.values() for span in spans if span.is_error]
    assert sorted(span.name for span in failed) == ["GET /product", "load prices", "load products"]
    assert {span.trace_id for span in failed} == {request.trace_id}
    assert {span.attributes["error.type"] for span in failed if span is not request} == {"ZeroDivisionError"}
    assert all("ZeroDivisionError" in span.attributes["otel.status_description"] for span in failed)


def test_the_context_goes_along_into_threads(shop: dict[str, list[Span]]) -> None:
    """Loads in a pool of threads are children of the span that their work was handed out in."""
    (outer,) = shop["threads"]
    assert [span.name for span in children(shop, outer)] == ["load products"] * 2


def test_the_context_goes_along_into_tasks_and_batches(shop: dict[str, list[Span]]) -> None:
    """A batch is a trace of its own, linked with the spans of all who added to it, in both directions."""
    (outer,), (flush,) = shop["tasks"], shop["flush lookups"]
    callers = shop["task 1"] + shop["task 2"]
    assert {span.name for span in children(shop, outer)} == {"task 1", "task 2", "orders.total"}
    assert flush.parent is None
    assert set(flush.links) == {span.itself for span in callers}
    assert all(flush.itself in span.links for span in callers)
    assert flush.attributes["perfopt.batch.size"] == 2
    assert flush.attributes["perfopt.batch.flush.reason"] == "size"


def test_a_batch_links_to_spans_that_have_ended(shop: dict[str, list[Span]]) -> None:
    """Nobody waits for these items; the batch still says where they came from."""
    (flush,) = shop["flush writes"]
    writes = {shop[f"write {number}"][0].itself for number in range(3)}
    assert set(flush.links) == writes


def test_a_lazy_load_is_below_the_first_use(shop: dict[str, list[Span]]) -> None:
    """Whoever came first waited, and shows it."""
    (use,) = shop["lazy"]
    assert [span.name for span in children(shop, use)] == ["load model"]


def test_a_span_says_what_service_it_is_from(shop: dict[str, list[Span]]) -> None:
    """The name of the service, its instance, and the language."""
    resources = [span.resource for spans in shop.values() for span in spans]
    assert {resource["telemetry.sdk.language"] for resource in resources} == {"python"}
    assert len({resource["service.instance.id"] for resource in resources}) == 1
    assert all(resource["process.pid"] > 0 for resource in resources)


def children(shop: dict[str, list[Span]], parent: Span) -> list[Span]:
    """The spans right below one."""
    return [span for spans in shop.values() for span in spans if (span.trace_id, span.parent) == parent.itself]


def test_the_demo(jaeger: Jaeger, tmp_path: Path) -> None:
    """A request of the demo shows its parts, their loads below them, and the batch that wrote its state."""
    repository = make_repository(tmp_path / "repository")
    code = f"""
        import sys
        from otel_perfopt.cli import main
        sys.exit(main(["demo", "--requests", "100", "--repo", {str(repository)!r}]))
    """
    send(jaeger, textwrap.dedent(code), "demo")
    spans = by_name(jaeger.spans("demo", lambda spans: {"request", "flush state_updates"} <= {span.name for span in spans}))
    assert len(spans["request"]) == 100
    assert len(spans["git_info"]) == len(spans["dependencies"]) == 100
    assert all(children(spans, request) for request in spans["request"])
    requests = {span.span_id for span in spans["request"]}
    assert all(span.parent in requests for span in spans["git_info"])
    operations = {span.span_id for span in spans["compilation"]}
    assert all(span.parent in operations for span in spans["load compilation"])
    linked = {link for flush in spans["flush state_updates"] for link in flush.links}
    assert linked == {span.itself for span in spans["request"]}


@pytest.mark.parametrize("service", ["shop", "worker"])
def test_an_example(service: str, jaeger: Jaeger) -> None:
    """The services of examples/ export requests or jobs, and what they were slow for."""
    pytest.importorskip(
        "opentelemetry.instrumentation.fastapi", reason="needs the group `examples`, which the lowest versions exclude"
    )
    script = ROOT / "examples" / service / "main.py"
    send(jaeger, script, service)
    verbs = ("load ", "acquire ", "flush ")
    spans = jaeger.spans(service, lambda spans: all(any(span.name.startswith(verb) for span in spans) for verb in verbs))
    itself = {span.itself: span for span in spans}
    for verb in verbs:
        below = [span for span in spans if span.name.startswith(verb) and (span.parent or span.links)]
        assert below, f"no span {verb}... belongs to another one"
        assert all((span.trace_id, span.parent) in itself for span in below if span.parent)
    assert any(span.is_error for span in spans), "the upstream is unreliable"
    assert {span.resource["service.name"] for span in spans} == {service}


def test_jaeger_answers_people(jaeger: Jaeger) -> None:
    """The address that the README names for a browser serves a page."""
    with urllib.request.urlopen(jaeger.url) as page:
        assert page.status == 200
        assert "text/html" in page.headers["Content-Type"]
