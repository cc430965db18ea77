"""What pools tell: metrics, spans and events."""

import contextvars
import re
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.metrics import db_metrics
from opentelemetry.trace import SpanKind, StatusCode

from otel_perfopt.errors import PoolFull, PoolTimeout
from otel_perfopt.telemetry import names, spans
from otel_perfopt.telemetry.events import Event, subscribe
from tests.pool.support import PATIENCE, TaskWorld, World, raising
from tests.telemetry.conftest import Service, exporter, record_spans, service

__all__ = ("exporter", "record_spans", "service")  # fixtures

DB_METRICS = ("COUNT", "CREATE_TIME", "IDLE_MAX", "IDLE_MIN", "MAX", "PENDING_REQUESTS", "TIMEOUTS", "USE_TIME", "WAIT_TIME")


def eventful_life(world: World, pool: Any) -> None:
    """One success without and one with a wait, a timeout, a refusal, a leak, a failed creation; three were destroyed."""
    holder = world.served(world.lease(pool))  # was created for it
    world.clock.advance(2)
    waiter = world.line(pool, 1)[0]
    with pytest.raises(PoolFull):
        world.do(pool.acquire)
    world.clock.advance(PATIENCE)
    assert isinstance(world.outcome(waiter), PoolTimeout)
    waiter = world.line(pool, 1)[0]
    world.clock.advance(3)
    world.in_time(lambda: pool.stats().leaks == 1, within=1)
    assert world.leave(holder) is None
    assert world.leave(world.served(waiter)) is None
    world.call(pool.destroy, world.do(pool.acquire))
    world.until(lambda: pool.stats().destroyed == {"requested": 1})
    world.factory.does = raising(OSError("down"))
    failing = world.lease(pool, timeout=None)
    world.until(lambda: pool._core.failures == 1)
    world.factory.does = world.make
    world.in_time(lambda: failing.thing is not None, within=5)
    assert world.leave(failing) is None
    world.until(lambda: pool.stats().available == 1)


def test_metrics(world: World, service: Callable[..., Service], name: str) -> None:
    """Every metric of the table with its value."""
    app = service()
    pool = world.pool(name=name, max_size=1, max_waiting=1, leak_after=10)
    eventful_life(world, pool)
    holder = world.served(world.lease(pool))
    world.line(pool, 1, timeout=None)
    collected = app.collect()
    values = {
        metric.name.removeprefix("perfopt.pool."): collected.values(metric, name)
        for metric in names.METRICS
        if metric.name.startswith("perfopt.pool.") and metric.kind != "histogram"
    }
    destroyed = values.pop("destroyed")
    assert {reason: count for reason, count in destroyed.items() if count} == {"requested": 1}
    assert destroyed.keys() == {"idle", "lifetime", "invalid", "reset", "requested", "lost", "drain", "resize", "close"}
    assert values.pop("count") == {"idle": 0, "used": 1}
    assert {key: value[""] for key, value in values.items()} == {
        "max": 1,
        "idle.min": 0,
        "pending_requests": 1,
        "acquires": 5,
        "timeouts": 1,
        "rejected": 1,
        "leaks": 1,
        "created": 2,
    }
    counts = {metric: collected.total(metric, name)[0] for metric in (names.POOL_WAIT_TIME, names.POOL_USE_TIME)}
    assert counts == {names.POOL_WAIT_TIME: 5, names.POOL_USE_TIME: 4}
    by_error = {point.attributes.get("error.type"): point.count for point in collected.points(names.POOL_CREATE_TIME, name)}
    assert by_error == {None: 2, "OSError": 1}
    world.leave(holder)


def test_times_are_those_of_the_clock(world: World, service: Callable[..., Service], name: str) -> None:
    """How long somebody waited, and how long it kept what it got."""
    app = service()
    pool = world.filled(name=name)
    holder = world.served(world.lease(pool))
    waiter = world.line(pool, 1)[0]
    world.clock.advance(3)
    world.leave(holder)
    world.served(waiter)
    world.clock.advance(0.5)
    world.leave(waiter)
    collected = app.collect()
    assert collected.total(names.POOL_WAIT_TIME, name) == pytest.approx((3, 3.0), rel=0.01)
    assert collected.total(names.POOL_USE_TIME, name) == pytest.approx((3, 3.5), rel=0.01)


def test_database_conventions(world: World, service: Callable[..., Service], name: str) -> None:
    """Exactly the nine official metrics: names, units, kinds, attributes, and buckets that suit seconds."""
    app = service()
    pool = world.pool(name=name, max_size=1, max_waiting=1, leak_after=10, semconv="db")
    eventful_life(world, pool)
    collected = app.collect()
    official = {getattr(db_metrics, f"DB_CLIENT_CONNECTION_{metric}") for metric in DB_METRICS}
    found = {key: metric for key, metric in collected.metrics.items() if key.startswith("db.client.")}
    assert {key for key in found if collected.points(key, name)} == official
    for key, metric in found.items():
        histogram = key.endswith("_time")
        data = metric.data
        is_counter = key == "db.client.connection.timeouts"
        unit = "s" if histogram else "{timeout}" if is_counter else "{request}" if "pending" in key else "{connection}"
        assert metric.unit == unit
        assert histogram or data.is_monotonic is is_counter
        attributes = {"db.client.connection.pool.name"} | ({"db.client.connection.state"} if key.endswith("n.count") else set())
        for point in collected.points(key, name):
            assert set(point.attributes) == attributes
            assert not histogram or (point.explicit_bounds[0] < 0.001 and point.explicit_bounds[-1] == 10)
    states = collected.values(names.DB_COUNT, name)
    assert (states, collected.values(names.DB_TIMEOUTS, name)) == ({"idle": 1, "used": 0}, {"": 1})
    assert collected.points(names.POOL_COUNT, name) == collected.points(names.POOL_WAIT_TIME, name) == []


def test_database_metrics_are_those_of_the_conventions() -> None:
    """Descriptions, too, as the semantic conventions package has them."""
    ours = {metric.name: metric for metric in names.METRICS if metric.name.startswith("db.client.connection.")}
    made: dict[str, Any] = {}

    class Meter:
        """Notes what it is asked for."""

        def __getattr__(self, kind: str) -> Any:
            def create(name: str, description: str, unit: str) -> None:
                made[name] = kind.removeprefix("create_").replace("_", "-"), unit, description

            return create

    for metric in DB_METRICS:
        getattr(db_metrics, f"create_db_client_connection_{metric.lower()}")(Meter())
    assert {name: (metric.kind.replace(" ", "-"), metric.unit, metric.description) for name, metric in ours.items()} == {
        name: (kind, unit, description) for name, (kind, unit, description) in made.items()
    }


def test_spans(world: World, exporter: InMemorySpanExporter, name: str) -> None:
    """Who waited for a creation has a span with a link to that of the creation, which is a root; who did not has none."""
    pool = world.pool(name=name)
    with spans.tracer().start_as_current_span("request") as request:
        inside = contextvars.copy_context()
    caller = inside.run(world.lease, pool)
    assert world.leave(world.served(caller)) is None
    assert world.leave(world.served(world.lease(pool))) is None
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert set(found) == {"request", f"create {name}", f"acquire {name}"}
    create, acquire = found[f"create {name}"], found[f"acquire {name}"]
    assert create.parent is None
    assert [link.context.span_id for link in acquire.links] == [create.context.span_id]
    assert create.links == ()
    assert dict(acquire.attributes or {}) == dict(create.attributes or {}) == {names.POOL_NAME: name}
    assert (acquire.kind, create.kind) == (SpanKind.INTERNAL, SpanKind.INTERNAL)
    assert (acquire.status.status_code, acquire.events) == (StatusCode.UNSET, ())
    if isinstance(world, TaskWorld):  # whose callers take the context with them
        assert acquire.parent is not None
        assert acquire.parent.span_id == request.get_span_context().span_id


def test_span_of_a_wait(world: World, exporter: InMemorySpanExporter, name: str) -> None:
    """Who waited for somebody else's resource has a span without a link, and with an error if the deadline came."""
    pool = world.filled(name=name)
    exporter.clear()
    holder = world.served(world.lease(pool))
    first, second = world.line(pool, 2, timeout=None)[0], world.line(pool, 1)[0]
    world.clock.advance(PATIENCE)
    assert isinstance(world.outcome(second), PoolTimeout)
    world.leave(holder)
    world.leave(world.served(first))
    late, *others = exporter.get_finished_spans()
    assert (late.name, late.status.status_code) == (f"acquire {name}", StatusCode.ERROR)
    assert (late.attributes or {})[names.ERROR_TYPE] == "otel_perfopt.errors.PoolTimeout"
    assert all(span.links == () and span.name == f"acquire {name}" for span in others)


def test_span_of_a_creation_that_fails(world: World, exporter: InMemorySpanExporter, name: str) -> None:
    """It has the error."""
    world.factory.does = raising(OSError("down"))
    with pytest.raises(OSError, match="down"):
        world.do(world.pool(name=name).acquire)
    world.factory.does = world.make
    failed = {span.name: span for span in exporter.get_finished_spans()}
    assert (failed[f"create {name}"].attributes or {})[names.ERROR_TYPE] == "OSError"
    assert failed[f"create {name}"].status.status_code is StatusCode.ERROR
    assert failed[f"acquire {name}"].status.status_code is StatusCode.ERROR


def test_creation_has_nothing_of_its_callers_context(world: World) -> None:
    """Neither its variables nor its span: what is made outlives the request that was there first."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[Any] = []

    def make() -> Any:
        seen.append((variable.get(), trace.get_current_span().get_span_context().trace_id))
        return world.make()

    pool = world.pool(factory=make)
    context = contextvars.copy_context()
    context.run(variable.set, "caller's")
    assert world.leave(world.served(context.run(world.lease, pool))) is None
    assert [value for value, _ in seen] == ["none"]


def test_events(world: World, name: str) -> None:
    """One for each resource that was created or destroyed, with its own name and the reason."""
    events: list[Event] = []
    with subscribe("pool.*", events.append):
        pool = world.filled(name=name, max_size=2)
        world.call(pool.destroy, world.do(pool.acquire))
        # Each is disposed of by a worker of its own.
        world.until(lambda: any(event.name == "pool.resource_destroyed" for event in events))
        assert world.close(pool)
    mine = [event for event in events if event.attributes["pool"] == name]
    assert [event.name for event in mine] == ["pool.resource_created"] * 2 + ["pool.resource_destroyed"] * 2
    created, destroyed = mine[:2], mine[2:]
    ids = {event.attributes["resource_id"] for event in created}
    assert ids == {f"{name}-0", f"{name}-1"} == {event.attributes["resource_id"] for event in destroyed}
    assert [event.attributes["reason"] for event in destroyed] == ["requested", "close"]
    assert all(re.fullmatch(r"pool|resource_id|reason", key) for event in mine for key in event.attributes)


def test_counts_belong_to_the_name(world: World, service: Callable[..., Service], name: str) -> None:
    """Two pools of one name are summed, and their counts stay when they are gone."""
    app = service()
    for _ in range(2):
        pool = world.filled(name=name)
        assert world.close(pool)
    collected = app.collect()
    assert collected.values(names.POOL_CREATED, name) == {"": 2}
    assert collected.values(names.POOL_MAX, name) == {"": 2}
