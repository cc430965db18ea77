"""Refreshes: a fresh value that gets old is loaded anew, once and behind its readers, who notice nothing."""

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_perfopt import Cache, cached
from otel_perfopt.cache.lifetimes import RETRY_AFTER
from otel_perfopt.telemetry import background, instruments, names, spans
from tests.cache.callers import Callers, Clock, Source
from tests.cache.support import TIMEOUT, Gate, new_cache, no_collection, passed, results, run, spawn_many, until, until_async
from tests.sync.test_fork import PRELUDE, run_script

BROKEN = ConnectionError("the source is down")


def ageing_cache(clock: Clock, **options: Any) -> Any:
    """Make a cache with one value that is due for a refresh."""
    cache = new_cache(**{"ttl": 100, "refresh_after": 50, "clock": clock, **options})
    cache.set("key", "old", tags=["tag"])
    clock.advance(50)
    return cache


def until_idle(cache: Any) -> None:
    """Wait until no load is in progress."""
    until(lambda: cache.stats().loads_in_flight == 0)


def test_a_hit_on_an_old_value_loads_it_anew(callers: Callers, clock: Clock) -> None:
    """The hit returns what is there; the next one gets the new value, which is fresh for its whole time."""
    cache, gate = ageing_cache(clock), Gate("new")
    assert callers.get(cache, gate) == "old"
    passed(gate.entered)
    assert cache.get("key") == "old"
    gate.opened.set()
    until_idle(cache)
    clock.advance(49)
    assert callers.get(cache, Source(BROKEN)) == "new"
    stats = cache.stats()
    assert (stats.refreshes, stats.hit_count, stats.miss_count, stats.stale_count) == (1, 3, 0, 0)


def test_a_young_value_is_left_alone(callers: Callers, clock: Clock) -> None:
    """Until it has the age."""
    cache, source = new_cache(ttl=100, refresh_after=50, clock=clock), Source()
    cache.set("key", "old")
    clock.advance(49.9)
    assert callers.get(cache, source) == "old"
    assert (source.calls, cache.stats().refreshes) == (0, 0)


def test_a_value_whose_time_is_over_is_loaded_as_ever(callers: Callers, clock: Clock) -> None:
    """Nobody asked for it in between."""
    cache, source = ageing_cache(clock), Source("new")
    clock.advance(50)
    assert callers.get(cache, source) == "new"
    assert (cache.stats().refreshes, cache.stats().miss_count) == (0, 1)


def test_one_refresh_at_a_time(callers: Callers, others: Callers, clock: Clock) -> None:
    """However many hits there are meanwhile, of whatever kind."""
    cache, gate = ageing_cache(clock), Gate("new")
    assert callers.get(cache, gate) == "old"
    passed(gate.entered)
    assert [others.get(cache, gate) for _ in range(5)] == ["old"] * 5
    gate.opened.set()
    until_idle(cache)
    assert (gate.calls, cache.stats().refreshes) == (1, 1)


def test_many_threads_at_once_start_one_refresh(clock: Clock) -> None:
    """The first to see that it is due takes it on."""
    cache, gate = ageing_cache(clock), Gate("new")
    assert results(spawn_many(12, lambda: cache.get("key", gate))) == ["old"] * 12
    passed(gate.entered)
    gate.opened.set()
    until_idle(cache)
    assert (gate.calls, cache.stats().refreshes) == (1, 1)


def test_a_refresh_that_fails_leaves_the_value(callers: Callers, clock: Clock) -> None:
    """It is tried again after about ten seconds, by the next hit then, and the value expires in its time."""
    cache, source = ageing_cache(clock), Source(BROKEN)
    assert callers.get(cache, source) == "old"
    until_idle(cache)
    clock.advance(0.8 * RETRY_AFTER - 0.01)
    assert callers.get(cache, source) == "old"
    until_idle(cache)
    assert source.calls == 1
    clock.advance(0.2 * RETRY_AFTER + 0.02)
    assert callers.get(cache, source) == "old"
    until_idle(cache)
    assert (source.calls, cache.stats().refreshes) == (2, 2)
    clock.advance(40)
    assert callers.error(cache, source) is BROKEN


def test_bug_a_refresh_that_takes_long_was_counted_again_with_each_attempt(callers: Callers, clock: Clock) -> None:
    """Ten seconds later it is due again, and in progress still."""
    cache, gate = ageing_cache(clock), Gate("new")
    callers.get(cache, gate)
    passed(gate.entered)
    clock.advance(RETRY_AFTER)
    assert callers.get(cache, gate) == "old"
    assert cache.stats().refreshes == 1
    gate.opened.set()
    until_idle(cache)
    assert gate.calls == 1


def test_an_exit_asked_for_by_a_refresh_in_a_worker_is_nobodys(clock: Clock) -> None:
    """The worker lives, the value stays."""
    cache = ageing_cache(clock)
    assert cache.get("key", Source(SystemExit("bye"))) == "old"
    until_idle(cache)
    assert cache.get("key") == "old"


def test_look_ups_without_a_loader_find_the_value(clock: Clock) -> None:
    """They are hits, and start nothing."""
    cache = ageing_cache(clock)
    assert "key" in cache
    assert cache.get("key") == "old"
    assert run(cache.get_async("key")) == "old"
    assert cache.delete("key")
    stats = cache.stats()
    assert (stats.hit_count, stats.miss_count, stats.refreshes) == (2, 0, 0)


def test_an_entry_with_a_short_time_of_its_own_is_not_refreshed(clock: Clock) -> None:
    """Its time is over before."""
    cache, source = new_cache(ttl=100, refresh_after=50, clock=clock), Source()
    cache.set("key", "old", ttl=10)
    clock.advance(9)
    assert cache.get("key", source) == "old"
    clock.advance(1)
    assert cache.get("key", source) == "new"
    assert cache.stats().refreshes == 0


CHANGES: dict[str, Callable[[Any], Any]] = {
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
    "tag": lambda cache: cache.invalidate_tag("tag"),
    "set": lambda cache: cache.set("key", "newer"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_happens_during_a_refresh_wins(how: str, callers: Callers, others: Callers, clock: Clock) -> None:
    """What the refresh brings was read before, and is not kept; nobody joins it."""
    cache, gate = ageing_cache(clock), Gate("outdated")
    callers.get(cache, gate, tags=["tag"])
    passed(gate.entered)
    CHANGES[how](cache)
    assert others.get(cache, lambda: "newer") == "newer"
    gate.opened.set()
    until_idle(cache)
    assert cache.get("key") == "newer"


def test_an_expiry_during_a_refresh_waits_for_it(callers: Callers, others: Callers, clock: Clock) -> None:
    """The value becomes old, and a new one is on its way."""
    cache, gate = ageing_cache(clock), Gate("new")
    callers.get(cache, gate)
    passed(gate.entered)
    cache.expire("key")
    asked = others.ask(cache, Source("mine"))
    gate.opened.set()
    assert asked.result(TIMEOUT) == "new"


def test_a_value_that_expires_during_its_refresh(callers: Callers, others: Callers, clock: Clock) -> None:
    """Whoever comes then joins, and a caller who leaves does not end it."""
    cache, gate = ageing_cache(clock), Gate("new")
    callers.get(cache, gate)
    passed(gate.entered)
    clock.advance(50)
    asked = [others.ask(cache, Source("mine")) for _ in range(2)]
    if others.kind != "thread":
        asked.pop().cancel()
    gate.opened.set()
    assert results(asked) == ["new"] * len(asked)
    assert cache.get("key") == "new"


def test_with_fail_safe_a_failed_refresh_is_not_repeated_when_the_value_expires(callers: Callers, clock: Clock) -> None:
    """The pause is the same."""
    cache, source = ageing_cache(clock, stale_for=3600), Source(BROKEN)
    clock.advance(49)
    callers.get(cache, source)
    until_idle(cache)
    clock.advance(1)
    assert callers.get(cache, source) == "old"
    assert (source.calls, cache.stats().stale_count) == (1, 1)


def test_a_refresh_keeps_the_options_of_its_request(callers: Callers, clock: Clock) -> None:
    """The new entry has the tags and the time that the caller gave."""
    cache = ageing_cache(clock)
    callers.get(cache, lambda: "new", ttl=10, tags=["other"])
    until(lambda: cache.get("key") == "new")
    until_idle(cache)
    clock.advance(9)
    assert "key" in cache
    clock.advance(1)
    assert "key" not in cache
    cache.set("key", "old")
    clock.advance(50)
    callers.get(cache, lambda: "new", tags=["other"])
    until(lambda: cache.get("key") == "new")
    cache.invalidate_tag("other")
    assert "key" not in cache


def test_a_decorated_function(clock: Clock) -> None:
    """Its hits find the value, and one of them starts the refresh."""
    source = Source("old")

    @cached(ttl=100, refresh_after=50, clock=clock)
    def price(article: str) -> Any:
        return article, source()

    assert price("tea") == ("tea", "old")
    source.outcome = "new"
    clock.advance(60)
    assert price("tea") == ("tea", "old")
    until(lambda: price("tea") == ("tea", "new"))
    assert source.calls == 2
    assert price.cache.stats().miss_count == 1


def test_a_decorated_coroutine_function(clock: Clock) -> None:
    """The refresh is a task of the loop."""
    source = Source("old")

    @cached(ttl=100, refresh_after=50, clock=clock)
    async def price(article: str) -> Any:
        await asyncio.sleep(0)
        return article, source()

    async def main() -> None:
        assert await price("tea") == ("tea", "old")
        source.outcome = "new"
        clock.advance(60)
        assert await price("tea") == ("tea", "old")
        await until_async(lambda: source.calls == 2 and price.cache.stats().loads_in_flight == 0)
        assert await price("tea") == ("tea", "new")

    run(main())


def test_a_loop_that_closes_takes_its_refreshes_along(clock: Clock) -> None:
    """The value stays, and the next loop refreshes it."""
    calls: list[str] = []

    @cached(ttl=100, refresh_after=50, clock=clock)
    async def price(article: str) -> str:
        calls.append(article)
        if len(calls) == 2:
            await asyncio.Event().wait()
        return f"{article} {len(calls)}"

    async def main(expected: str) -> None:
        assert await price("tea") == expected
        await until_async(lambda: len(calls) > 1)

    async def first() -> None:
        assert await price("tea") == "tea 1"

    run(first())
    clock.advance(60)
    run(main("tea 1"))
    assert price.cache.stats().loads_in_flight == 0
    clock.advance(RETRY_AFTER)
    run(main("tea 1"))
    clock.advance(40)
    run(main("tea 3" if len(calls) == 3 else "tea 4"))


def test_a_refresh_on_a_loop_that_was_left_behind_is_nobodys(clock: Clock) -> None:
    """A loop that is closed without cancelling its tasks: the flight is given up by whoever meets it."""
    cache = ageing_cache(clock)
    loop = asyncio.new_event_loop()
    never = Gate("never")

    async def load() -> str:
        never.entered.set()
        await asyncio.Event().wait()
        return "never"

    assert loop.run_until_complete(cache.get_async("key", load)) == "old"
    loop.run_until_complete(asyncio.sleep(0))
    passed(never.entered)
    clock.advance(RETRY_AFTER)
    assert cache.get("key", lambda: "new") == "old"
    until(lambda: cache.get("key") == "new")
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert cache.stats().loads_in_flight == 0


def test_an_instance_lives_until_its_refresh_has_ended(clock: Clock) -> None:
    """The refresh calls its method; then the instance goes at once, and so do its entries."""
    gate = Gate("new")

    class Shop:
        @cached(ttl=100, refresh_after=50, clock=clock)
        def price(self, article: str) -> Any:
            return gate() if gate.entered.is_set() or gate.outcome == "due" else article

    shop = Shop()
    assert shop.price("tea") == "tea"
    gate.outcome = "due"
    clock.advance(60)
    with no_collection():
        assert shop.price("tea") == "tea"
        passed(gate.entered)
        reference = weakref.ref(shop)
        del shop
        assert reference() is not None
        gate.opened.set()
        until(lambda: reference() is None)
    cache: Any = Shop.price.cache
    assert cache.stats().loads_in_flight == 0
    assert not any(entry.fresh_until > clock() for entry in cache._store.entries.values())


def test_a_dropped_cache_is_gone_when_its_refresh_has_ended(clock: Clock) -> None:
    """By reference counts alone."""
    with no_collection():
        cache, gate = ageing_cache(clock), Gate("new")
        cache.get("key", gate)
        passed(gate.entered)
        reference = weakref.ref(cache)
        del cache
        gate.opened.set()
        until(lambda: reference() is None)
    gc.collect()


def test_a_refresh_without_a_thread_is_left_undone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exit of the process, for instance; the value is fresh for now, and nothing was started."""

    def refuse(_: object) -> None:
        raise background.NoThread("none left")

    cache, source = ageing_cache(clock), Source()
    with monkeypatch.context() as patched:
        patched.setattr(background, "submit", refuse)
        assert cache.get("key", source) == "old"
    assert (source.calls, cache.stats().refreshes, cache.stats().loads_in_flight) == (0, 0, 0)
    clock.advance(RETRY_AFTER)
    cache.get("key", source)
    until(lambda: cache.get("key") == "new")


def test_the_count_is_a_metric(clock: Clock, request: pytest.FixtureRequest) -> None:
    """Under the name of the cache."""
    name = request.node.nodeid
    cache: Cache[str, str] = Cache(name, ttl=100, refresh_after=50, clock=clock)
    cache.set("key", "old")
    clock.advance(60)
    cache.get("key", lambda: "new")
    until_idle(cache)
    counted = [reading.value for reading in instruments.observe(names.CACHE_REFRESHES) if name in reading.attributes.values()]
    assert counted == [1]


def test_the_span_is_a_root_with_a_link_to_the_request(callers: Callers, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request does not wait for it, and is only its reason."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(spans, "_tracer", tracer)
    cache, source = ageing_cache(clock), Source(BROKEN)
    assert callers.kind  # each kind runs its refresh somewhere else
    with tracer.start_as_current_span("request") as request:
        if callers.kind == "thread":
            assert cache.get("key", source) == "old"
        else:
            run(refreshed(cache, source, is_coroutine=callers.kind == "loop"))
    until_idle(cache)
    until(lambda: len(exporter.get_finished_spans()) == 2)
    (span,) = (span for span in exporter.get_finished_spans() if span.name != "request")
    assert (span.name, span.parent) == ("refresh test", None)
    assert [link.context.span_id for link in span.links] == [request.get_span_context().span_id]
    assert dict(span.attributes or {}) == {"perfopt.cache.name": "test", "error.type": "ConnectionError"}
    assert span.context.trace_id != request.get_span_context().trace_id


async def refreshed(cache: Any, source: Source, *, is_coroutine: bool) -> None:
    """Ask on a loop of one's own, which goes on until the refresh has ended."""

    async def load() -> Any:
        return source()

    assert await cache.get_async("key", load if is_coroutine else source) == "old"
    await until_async(lambda: cache.stats().loads_in_flight == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_refreshes_for_itself() -> None:
    """The refresh that was in progress is the parent's."""
    script = """
from otel_perfopt.testing import ManualClock
clock = ManualClock()
cache = Cache("forked", ttl=100, refresh_after=10, clock=clock)
cache.set("key", "old")
clock.advance(10)
entered, opened = threading.Event(), threading.Event()

def slow():
    entered.set()
    opened.wait(20)
    return "parent"

assert cache.get("key", slow) == "old"
entered.wait(20)

def check():
    assert cache.get("key") == "old"
    assert (cache.stats().loads_in_flight, cache.stats().refreshes) == (0, 0)
    clock.advance(10)
    assert cache.get("key", lambda: "child") == "old"
    while cache.get("key") != "child":
        time.sleep(0.001)

in_child(check)
opened.set()
while cache.get("key") != "parent":
    time.sleep(0.001)
print("done")
"""
    assert run_script(PRELUDE + script) == "done\n"


def test_a_hit_at_exit_does_not_wait_for_a_refresh() -> None:
    """Nor does the process: a refresh that hangs is left behind."""
    script = """
import atexit
from otel_perfopt.testing import ManualClock
clock = ManualClock()
cache = Cache("exiting", ttl=100, refresh_after=10, hard_timeout=5, clock=clock)
cache.set_many({"key": "old", "other": "old"})
clock.advance(10)
cache.get("key", lambda: threading.Event().wait(30))

def late():
    assert cache.get("other", lambda: "new") == "old"
    assert cache.get("missing", lambda: "loaded") == "loaded"
    print("done", flush=True)

atexit.register(late)
"""
    assert run_script(PRELUDE + script) == "done\n"
